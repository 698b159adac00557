// The instructions are written as assembly so that they are what runs; target attributes take the place of a file per
// instruction set, since nothing else is in here. What the kernels use: x86/panel.h, arm/.
#include "bench/limits.h"

namespace sdar {
namespace {

#define SDAR_UNROLL _Pragma("GCC unroll 16")

#if defined(__x86_64__)

// Vectors of the width of a register.
using Ymm = float __attribute__((vector_size(32)));
using Zmm = float __attribute__((vector_size(64)));

// Twelve sums hide the latency of any of these and leave registers for the operands.
#define SDAR_MULTIPLY(name, features, Vec, instruction)                                                   \
  __attribute__((target(features))) void name(int64_t rounds) {                                           \
    Vec sum[12] = {}, a = {}, b = {};                                                                     \
    for (int64_t r = 0; r < rounds; r++) {                                                                \
      SDAR_UNROLL for (Vec & s : sum) asm volatile(instruction " %2, %1, %0" : "+v"(s) : "v"(a), "v"(b)); \
    }                                                                                                     \
  }
// Products in one instruction, their sum in another.
#define SDAR_MULTIPLY_THEN_ADD(name, features, Vec, multiply, add)                                         \
  __attribute__((target(features))) void name(int64_t rounds) {                                            \
    Vec sum[8] = {}, product, a = {}, b = {};                                                              \
    for (int64_t r = 0; r < rounds; r++) {                                                                 \
      SDAR_UNROLL for (Vec & s : sum) asm volatile(multiply " %3, %2, %1\n\t" add " %1, %0, %0" : "+v"(s), \
                                                   "=&v"(product) : "v"(a), "v"(b));                       \
    }                                                                                                      \
  }
#define SDAR_READ(name, features, Vec, instruction)                                                                  \
  __attribute__((target(features))) void name(const std::byte* data, size_t bytes) {                                 \
    Vec any[8] = {};                                                                                                 \
    for (size_t at = 0; at + sizeof any <= bytes; at += sizeof any) {                                                \
      const Vec* line = reinterpret_cast<const Vec*>(data + at);                                                     \
      __builtin_prefetch(data + at + kAhead), __builtin_prefetch(data + at + kAhead + 64);                           \
      __builtin_prefetch(data + at + kAhead + 128), __builtin_prefetch(data + at + kAhead + 192);                    \
      SDAR_UNROLL for (int i = 0; i < 8; i++) asm volatile(instruction " %1, %0, %0" : "+v"(any[i]) : "m"(line[i])); \
    }                                                                                                                \
  }
constexpr size_t kAhead = 4096;

#define SDAR_AVX512 "avx512f,avx512bw,avx512vl,avx512dq"
SDAR_READ(read_ymm, "avx2", Ymm, "vorps")
SDAR_MULTIPLY(fma_ymm, "avx2,fma", Ymm, "vfmadd231ps")
SDAR_MULTIPLY_THEN_ADD(madd16_ymm, "avx2", Ymm, "vpmaddwd", "vpaddd")
SDAR_MULTIPLY_THEN_ADD(madd8_ymm, "avx2", Ymm, "vpmaddubsw", "vpaddw")
constexpr MultiplyLoop kFmaYmm{"vfmadd231ps ymm", fma_ymm, 12 * 8 * 2};
constexpr MultiplyLoop kMadd16Ymm{"vpmaddwd ymm", madd16_ymm, 8 * 16 * 2};
constexpr MultiplyLoop kMadd8Ymm{"vpmaddubsw ymm", madd8_ymm, 8 * 32 * 2};

#ifdef SDAR_HAS_avx2vnni
SDAR_MULTIPLY(dot8_ymm, "avx2", Ymm, "%{vex%} vpdpbusd")
constexpr MultiplyLoop kDot8Ymm{"vpdpbusd ymm", dot8_ymm, 12 * 32 * 2};
#endif
#ifdef SDAR_HAS_avx512
SDAR_READ(read_zmm, SDAR_AVX512, Zmm, "vorps")
SDAR_MULTIPLY(fma_zmm, SDAR_AVX512, Zmm, "vfmadd231ps")
SDAR_MULTIPLY_THEN_ADD(madd16_zmm, SDAR_AVX512, Zmm, "vpmaddwd", "vpaddd")
SDAR_MULTIPLY_THEN_ADD(madd8_zmm, SDAR_AVX512, Zmm, "vpmaddubsw", "vpaddw")
constexpr MultiplyLoop kFmaZmm{"vfmadd231ps zmm", fma_zmm, 12 * 16 * 2};
constexpr MultiplyLoop kMadd16Zmm{"vpmaddwd zmm", madd16_zmm, 8 * 32 * 2};
constexpr MultiplyLoop kMadd8Zmm{"vpmaddubsw zmm", madd8_zmm, 8 * 64 * 2};
#endif
#ifdef SDAR_HAS_avx512vnni
SDAR_MULTIPLY(dot8_zmm, SDAR_AVX512, Zmm, "vpdpbusd")
constexpr MultiplyLoop kDot8Zmm{"vpdpbusd zmm", dot8_zmm, 12 * 64 * 2};
#endif
#ifdef SDAR_HAS_avx512bf16
SDAR_MULTIPLY(dot_bf16_zmm, SDAR_AVX512, Zmm, "vdpbf16ps")
constexpr MultiplyLoop kDotBf16Zmm{"vdpbf16ps zmm", dot_bf16_zmm, 12 * 32 * 2};
#endif
#ifdef SDAR_HAS_avx512amx
/// Eight tiles of 16 rows of 64 bytes: four sums, two of each operand. Intel SDM, LDTILECFG.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
#define SDAR_TILES(name, instruction)                                                                        \
  void name(int64_t rounds) {                                                                                \
    const TileConfig config;                                                                                 \
    asm volatile("ldtilecfg %0" : : "m"(config));                                                            \
    asm volatile(                                                                                            \
        "tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3\n\t"                           \
        "tilezero %tmm4\n\ttilezero %tmm5\n\ttilezero %tmm6\n\ttilezero %tmm7");                             \
    for (int64_t r = 0; r < rounds; r++) {                                                                   \
      asm volatile(instruction " %tmm6, %tmm4, %tmm0\n\t" instruction " %tmm7, %tmm4, %tmm1\n\t" instruction \
                               " %tmm6, %tmm5, %tmm2\n\t" instruction " %tmm7, %tmm5, %tmm3");               \
    }                                                                                                        \
    asm volatile("tilerelease");                                                                             \
  }
SDAR_TILES(tile_dot8, "tdpbssd")
SDAR_TILES(tile_dot_bf16, "tdpbf16ps")
constexpr MultiplyLoop kTileDot8{"tdpbssd", tile_dot8, 4 * 16 * 16 * 64 * 2};
constexpr MultiplyLoop kTileDotBf16{"tdpbf16ps", tile_dot_bf16, 4 * 16 * 16 * 32 * 2};
#endif

constexpr LimitLoops kBuilt[] = {
#ifdef SDAR_HAS_avx512amx
    {"avx512amx", {kFmaZmm, kTileDotBf16, kTileDot8, kTileDot8}, read_zmm},
#endif
#ifdef SDAR_HAS_avx512bf16
    {"avx512bf16", {kFmaZmm, kDotBf16Zmm, kDot8Zmm, kDot8Zmm}, read_zmm},
#endif
#ifdef SDAR_HAS_avx512vnni
    {"avx512vnni", {kFmaZmm, kFmaZmm, kDot8Zmm, kDot8Zmm}, read_zmm},
#endif
#ifdef SDAR_HAS_avx512
    {"avx512", {kFmaZmm, kFmaZmm, kMadd16Zmm, kMadd8Zmm}, read_zmm},
#endif
#ifdef SDAR_HAS_avx2vnni
    {"avx2vnni", {kFmaYmm, kFmaYmm, kDot8Ymm, kDot8Ymm}, read_ymm},
#endif
    {"avx2", {kFmaYmm, kFmaYmm, kMadd16Ymm, kMadd8Ymm}, read_ymm},          {nullptr, {}, nullptr}};

#elif defined(__aarch64__)

using Quad = float __attribute__((vector_size(16)));

// Sixteen sums and two operands of 32 registers. `set` names the architecture for the assembler.
#define SDAR_MULTIPLY(name, set, instruction, sums, operands)                                                    \
  void name(int64_t rounds) {                                                                                    \
    Quad sum[16] = {}, a = {}, b = {};                                                                           \
    for (int64_t r = 0; r < rounds; r++) {                                                                       \
      SDAR_UNROLL for (Quad & s : sum) asm volatile(".arch " set "\n\t" instruction " %0." sums ", %1." operands \
                                                    ", %2." operands "\n\t.arch armv8-a" : "+w"(s) : "w"(a),     \
                                                    "w"(b));                                                     \
    }                                                                                                            \
  }
SDAR_MULTIPLY(fma_quad, "armv8-a", "fmla", "4s", "4s")
SDAR_MULTIPLY(multiply8_quad, "armv8-a", "smlal", "8h", "8b")
SDAR_MULTIPLY(dot8_quad, "armv8.2-a+dotprod", "sdot", "4s", "16b")
SDAR_MULTIPLY(matrix8_quad, "armv8.2-a+i8mm", "usmmla", "4s", "16b")
SDAR_MULTIPLY(matrix_bf16_quad, "armv8.2-a+bf16", "bfmmla", "4s", "8h")
constexpr MultiplyLoop kFma{"fmla", fma_quad, 16 * 4 * 2}, kMultiply8{"smlal", multiply8_quad, 16 * 8 * 2},
    kDot8{"sdot", dot8_quad, 16 * 16 * 2}, kMatrix8{"usmmla", matrix8_quad, 16 * 32 * 2},
    kMatrixBf16{"bfmmla", matrix_bf16_quad, 16 * 16 * 2};

void read_quads(const std::byte* data, size_t bytes) {
  Quad any[8] = {};
  for (size_t at = 0; at + sizeof any <= bytes; at += sizeof any) {
    const Quad* line = reinterpret_cast<const Quad*>(data + at);
    SDAR_UNROLL for (int i = 0; i < 8; i++) {
      const Quad loaded = line[i];
      asm volatile("orr %0.16b, %0.16b, %1.16b" : "+w"(any[i]) : "w"(loaded));
    }
  }
}

constexpr LimitLoops kBuilt[] = {{"neoni8mm", {kFma, kMatrixBf16, kMatrix8, kMatrix8}, read_quads},
                                 {"neondot", {kFma, kFma, kDot8, kDot8}, read_quads},
                                 {"neon", {kFma, kFma, kMultiply8, kMultiply8}, read_quads},
                                 {nullptr, {}, nullptr}};

#else

constexpr LimitLoops kBuilt[] = {{nullptr, {}, nullptr}};

#endif

}  // namespace

const LimitLoops* built_limit_loops() { return kBuilt; }

}  // namespace sdar
