// The AMX tile instructions, each in one named function, twice: HardwareTiles issues it, PlainTiles does the same in
// plain loops, so that kernels over tiles are tested on machines without them. Eight tiles of at most 16 rows × 64
// bytes. Source: Intel SDM vol. 2, LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TILERELEASE, TDPBSSD, TDPBSUD,
// TDPBF16PS.
//   configure(config)            shapes of the tiles; all become zero
//   load<T>(p, stride)           row r = the bytes at p + r · stride
//   store<T>(p, stride)
//   zero<T>()
//   multiply_signed<D, A, B>()   D[m][n] += Σ A[m][4k + i] · B[k][4n + i], int8 · int8 to int32
//   multiply_unsigned<D, A, B>() the same, int8 · uint8
//   multiply_bf16<D, A, B>()     D[m][n] += Σ A[m][2k + i] · B[k][2n + i], bf16 to f32
//   release()                    to be done before a thread sleeps
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sdar::cpu {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

#if defined(__AMX_TILE__) || defined(__AMXTILE__)  // gcc's name, clang's older one
/// Inline assembly instead of intrinsics: gcc 12's _tile_loadconfig names only 8 bytes of its operand and its
/// _tile_loadd none at all, so stores to what they read may be dropped or come late.
struct HardwareTiles {
  static void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
  template <int T>
  static void load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int D, int A, int B>
  static void multiply_signed() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(D), "i"(A), "i"(B));
  }
  template <int D, int A, int B>
  static void multiply_unsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(D), "i"(A), "i"(B));
  }
  template <int D, int A, int B>
  static void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(D), "i"(A), "i"(B));
  }
  static void release() { asm volatile("tilerelease"); }
};
#endif

/// Ends the process where the processor would raise an exception: no configuration, shapes that do not fit together.
class PlainTiles {
 public:
  static bool configured() { return state().configured; }

  static void configure(const TileConfig& config) {
    require(config.palette == 1 && config.start_row == 0, "palette");
    for (int t = 0; t < 16; t++) {
      const bool unused = config.rows[t] == 0 && config.bytes_per_row[t] == 0;
      const bool usable = t < 8 && config.rows[t] >= 1 && config.rows[t] <= 16 && config.bytes_per_row[t] >= 1 &&
                          config.bytes_per_row[t] <= 64;
      require(unused || usable, "shape of a tile");
    }
    state().configured = true;
    state().config = config;
    std::memset(state().bytes, 0, sizeof state().bytes);
  }
  template <int T>
  static void load(const void* p, int64_t stride) {
    require_tile(T);
    std::memset(state().bytes[T], 0, sizeof state().bytes[T]);
    for (int r = 0; r < rows(T); r++) {
      std::memcpy(state().bytes[T][r], static_cast<const uint8_t*>(p) + r * stride, width(T));
    }
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    require_tile(T);
    for (int r = 0; r < rows(T); r++) std::memcpy(static_cast<uint8_t*>(p) + r * stride, state().bytes[T][r], width(T));
  }
  template <int T>
  static void zero() {
    require_tile(T);
    std::memset(state().bytes[T], 0, sizeof state().bytes[T]);
  }
  template <int D, int A, int B>
  static void multiply_signed() {
    multiply_integers<int8_t>(D, A, B);
  }
  template <int D, int A, int B>
  static void multiply_unsigned() {
    multiply_integers<uint8_t>(D, A, B);
  }
  /// The products of the pairs' first and second halves are summed apart, then both sums are added to D.
  template <int D, int A, int B>
  static void multiply_bf16() {
    require_product(D, A, B);
    for (int m = 0; m < rows(D); m++) {
      float sums[2][16] = {};
      for (int k = 0; k < width(A) / 4; k++) {
        for (int n = 0; n < width(D) / 4; n++) {
          for (int i = 0; i < 2; i++) {
            sums[i][n] = flush(std::fma(bf16(A, m, 2 * k + i), bf16(B, k, 2 * n + i), sums[i][n]));
          }
        }
      }
      for (int n = 0; n < width(D) / 4; n++) {
        float d;
        std::memcpy(&d, state().bytes[D][m] + 4 * n, 4);
        d = flush(flush(d) + flush(sums[0][n] + sums[1][n]));
        std::memcpy(state().bytes[D][m] + 4 * n, &d, 4);
      }
    }
  }
  static void release() { state().configured = false; }

 private:
  struct State {
    bool configured = false;
    TileConfig config;
    alignas(64) uint8_t bytes[8][16][64];
  };
  static State& state() {
    static thread_local State s;
    return s;
  }
  static int rows(int tile) { return state().config.rows[tile]; }
  static int width(int tile) { return state().config.bytes_per_row[tile]; }

  static void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "plain tiles: invalid %s\n", what);
    std::abort();
  }
  static void require_tile(int tile) {
    require(state().configured, "use without a configuration");
    require(rows(tile) > 0, "tile");
  }
  static void require_product(int d, int a, int b) {
    require_tile(d), require_tile(a), require_tile(b);
    require(d != a && d != b && a != b, "choice of tiles");
    require(rows(d) == rows(a) && width(d) == width(b) && width(a) == 4 * rows(b), "shapes of a product");
    require(width(d) % 4 == 0 && width(a) % 4 == 0, "width of a product");
  }
  template <class Right>
  static void multiply_integers(int d, int a, int b) {
    require_product(d, a, b);
    for (int m = 0; m < rows(d); m++) {
      for (int n = 0; n < width(d) / 4; n++) {
        uint32_t sum;  // wraps
        std::memcpy(&sum, state().bytes[d][m] + 4 * n, 4);
        for (int k = 0; k < width(a); k++) {
          const int left = static_cast<int8_t>(state().bytes[a][m][k]);
          const int right = static_cast<Right>(state().bytes[b][k / 4][4 * n + k % 4]);
          sum += static_cast<uint32_t>(left * right);
        }
        std::memcpy(state().bytes[d][m] + 4 * n, &sum, 4);
      }
    }
  }
  /// Denormals are zero, before and after each operation.
  static float flush(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v; }
  static float bf16(int tile, int row, int index) {
    uint16_t half;
    std::memcpy(&half, state().bytes[tile][row] + 2 * index, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float v;
    std::memcpy(&v, &bits, 4);
    return flush(v);
  }
};

}  // namespace
}  // namespace sdar::cpu
