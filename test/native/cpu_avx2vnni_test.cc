// The AVX-VNNI kernels on machines that have the same dot product as AVX-512 only: the kernels' source is compiled here
// with that encoding, and must give the bits of the AVX2 kernels, which multiply integers in another way.
#include <cstring>
#include <vector>

#include "backend/cpu/cpu.h"
#include "backend/cpu/matmul.h"
#include "check.h"
#include "oracle.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512vl,avx512vnni")
#define SDAR_DOT8_EVEX
#include "backend/cpu/kernels/table.h"
namespace sdar::cpu {
namespace {
const Kernels kEmulated = make_table("avx2vnni as AVX-512 VNNI");
}
}  // namespace sdar::cpu
#pragma GCC pop_options

using namespace sdar;
using namespace sdar::cpu;

TEST("AVX-VNNI kernels give the bits of the AVX2 kernels") {
  const Kernels* plain = kernels_for("avx2");
  if (!plain || !kernels_for("avx512vnni")) {
    std::printf("# not run: no AVX-512 VNNI here\n");
    return;
  }
  CHECK(kEmulated.activation_bytes[static_cast<int>(WeightFormat::int8)] == 1);
  oracle::Random random(1);
  for (WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    for (auto [rows, cols] : {std::pair{33, 24}, {64, 640}, {70, 257}}) {
      const WeightSpec spec{WeightKind::linear, format, rows, cols};
      const auto values = random.floats(static_cast<size_t>(rows * cols));
      const SourceTensor part{reinterpret_cast<const std::byte*>(values.data()), DType::f32, rows, cols};
      Buffer<std::byte> memory;
      pack_panels(spec, {&part, 1}, 0, pack_units(spec), memory.reserve(packed_bytes(spec)));
      const PackedWeight weight = describe(spec, memory.data());
      Pool pool(2);
      for (int m : {1, 2, 3, 4, 5, 6, 7, 20}) {
        const auto x = random.floats(static_cast<size_t>(m * cols));
        std::vector<float> out[2];
        for (int emulated = 0; emulated < 2; emulated++) {
          Matmul linear(emulated ? kEmulated : *plain, pool);
          ActivationRows memory_of_rows;
          const Activations a = linear.prepare({x.data(), cols}, format, m, memory_of_rows);
          out[emulated].assign(static_cast<size_t>(m * rows), std::nanf(""));
          linear.multiply(weight, a, m, Epilogue::store, out[emulated].data(), rows);
        }
        CHECK(!std::memcmp(out[0].data(), out[1].data(), out[0].size() * sizeof(float)));
      }
    }
  }
}
#endif

int main(int c, char** v) { return check::run(c, v); }
