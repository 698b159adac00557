#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/attention_pass.h"
#include "backend/cpu/kernels/simd/generic.h"
#include "util/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sdar::cpu {

// SDAR_BUILT_SETS is SDAR_SET(name) of every set of this build, best first (cmake/isa.cmake).
#define SDAR_SET(name) extern const Kernels kKernels_##name;
SDAR_BUILT_SETS
#undef SDAR_SET

namespace {

const Kernels* const kBuilt[] = {
#define SDAR_SET(name) &kKernels_##name,
    SDAR_BUILT_SETS
#undef SDAR_SET
    nullptr};

#if defined(__x86_64__)
struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Leaf cpuid(unsigned leaf, unsigned subleaf) {
  Leaf r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}
constexpr bool bit(unsigned value, int n) { return value >> n & 1; }

/// Register state that the operating system saves.
uint64_t saved_state() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

/// Linux grants tile registers on request, once per process.
bool request_tiles() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool can_run(const char* isa) {
  static const struct Features {
    bool avx2 = false, avx2vnni = false, avx512 = false, vnni = false, bf16 = false, amx = false;
    Features() {
      const Leaf one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
      if (!bit(one.ecx, 27)) return;  // OSXSAVE
      const uint64_t state = saved_state();
      if ((state & 0x6) != 0x6) return;                                  // XMM, YMM
      avx2 = bit(seven.ebx, 5) && bit(one.ecx, 12) && bit(one.ecx, 29);  // AVX2, FMA, F16C
      avx2vnni = avx2 && bit(seven_one.eax, 4);
      if ((state & 0xe6) != 0xe6) return;  // opmask, ZMM
      avx512 = avx2 && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) && bit(seven.ebx, 31);
      vnni = avx512 && bit(seven.ecx, 11);
      bf16 = vnni && bit(seven_one.eax, 5);
      amx = bf16 && bit(seven.edx, 22) && bit(seven.edx, 24) && bit(seven.edx, 25) && (state & 0x60000) == 0x60000 &&
            request_tiles();
    }
  } f;
  if (!std::strcmp(isa, "avx2")) return f.avx2;
  if (!std::strcmp(isa, "avx2vnni")) return f.avx2vnni;
  if (!std::strcmp(isa, "avx512")) return f.avx512;
  if (!std::strcmp(isa, "avx512vnni")) return f.vnni;
  if (!std::strcmp(isa, "avx512bf16")) return f.bf16;
  if (!std::strcmp(isa, "avx512amx")) return f.amx;
  return false;
}
#elif defined(__aarch64__)
bool can_run(const char* isa) {
#ifdef __linux__
  const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
  const bool dot = one >> 20 & 1, i8mm = (two >> 13 & 1) && (two >> 14 & 1);  // ASIMDDP; I8MM, BF16
#elif defined(__APPLE__)
  const auto has = [](const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
  };
  const bool dot = has("hw.optional.arm.FEAT_DotProd");
  const bool i8mm = has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16");
#else
  const bool dot = false, i8mm = false;
#endif
  if (!std::strcmp(isa, "neon")) return true;
  if (!std::strcmp(isa, "neondot")) return dot;
  if (!std::strcmp(isa, "neoni8mm")) return dot && i8mm;
  return false;
}
#else
bool can_run(const char*) { return false; }
#endif

}  // namespace

const Kernels* kernels_for(const char* isa) {
  for (const Kernels* table : kBuilt) {
    if (table && !std::strcmp(table->isa, isa)) return can_run(isa) ? table : nullptr;
  }
  return nullptr;
}

const AttentionKernels& attention_kernels(const char* isa) {
  static constexpr AttentionKernels kPortable = make_attention<FloatOperands<Generic>, FloatOperands<Generic>>(false);
  const Kernels* kernels = kernels_for(isa);
  return kernels ? kernels->attention : kPortable;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* table : kBuilt) {
    if (table && can_run(table->isa)) names.push_back(table->isa);
  }
  names.push_back("portable");
  return names;
}

std::string choose_isa(const std::string& wanted) {
  const std::vector<std::string> names = instruction_sets();
  const char* environment = std::getenv("SDAR_ISA");
  const bool from_environment = wanted.empty() && environment && *environment;
  const std::string name = from_environment ? environment : wanted;
  if (name.empty()) return names.front();
  std::string allowed;
  for (const std::string& candidate : names) {
    if (candidate == name) return name;
    allowed += (allowed.empty() ? "" : ", ") + candidate;
  }
  throw Error(code::kInvalidOption, std::string(from_environment ? "SDAR_ISA" : "isa") + " is \"" + name +
                                        "\"; this machine and build have " + allowed);
}

}  // namespace sdar::cpu
