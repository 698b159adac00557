// The kernels of avx512amx, by their real instructions where the machine has them, and by scalar emulation.
#include "cpu_amx_test.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/packing.h"
#include "backend/cpu/pool.h"
#include "check.h"
#include "oracle.h"

using namespace sdar;
using namespace sdar::cpu;

namespace {

const Kernels* real_tiles() { return kernels_for("avx512amx"); }

/// What can run here: emulation, real tiles.
std::vector<const Kernels*> tables() {
  std::vector<const Kernels*> all;
#ifdef SDAR_HAS_avx512bf16
  if (kernels_for("avx512bf16")) all.push_back(&amx_emulation::kKernels);
#endif
  if (real_tiles()) all.push_back(real_tiles());
  return all;
}

const char* name_of(const Kernels* table) { return table == real_tiles() ? "real tiles" : "scalar emulation"; }

struct Shape {
  WeightKind kind;
  int64_t outputs, k;
};

/// A weight, rows to multiply it with, and room for the result with a guard behind every row.
struct Problem {
  Problem(WeightKind kind, WeightFormat format, int64_t outputs, int64_t k, int64_t m, uint64_t seed) : m(m) {
    oracle::Random random(seed);
    const bool gate_up = kind == WeightKind::gate_up;
    const WeightSpec spec{kind, format, gate_up ? 2 * outputs : outputs, k};
    std::vector<std::vector<float>> parts;
    std::vector<SourceTensor> sources;
    for (int i = 0; i < (gate_up ? 2 : 1); i++) parts.push_back(random.floats(static_cast<size_t>(outputs * k)));
    for (const auto& part : parts)
      sources.push_back({reinterpret_cast<const std::byte*>(part.data()), DType::f32, outputs, k});
    pack_panels(spec, sources, 0, pack_units(spec), bytes.reserve(packed_bytes(spec)));
    weight = std::make_unique<PackedWeight>(describe(spec, bytes.data()));
    x = random.floats(static_cast<size_t>(m * k), -2, 2);
    before = random.floats(static_cast<size_t>(m * stride()));
  }

  int64_t stride() const { return weight->outputs() + 3; }
  Epilogue epilogue() const {
    return weight->spec.kind == WeightKind::gate_up ? Epilogue::silu_mul
           : weight->spec.kind == WeightKind::table ? Epilogue::store
                                                    : Epilogue::add;
  }

  /// Rows [first, first + rows) of x times the weight, on `out` with its guards.
  std::vector<float> run(const Kernels& kernels, int64_t first, int64_t rows, int threads = 1) const {
    Pool pool(threads);
    Matmul linear(kernels, pool);
    ActivationRows memory;
    const Activations a = linear.prepare({x.data(), weight->spec.cols}, weight->format, m, memory);
    std::vector<float> out(before.begin() + first * stride(), before.begin() + (first + rows) * stride());
    linear.multiply(*weight, Matmul::rows_from(a, first), rows, epilogue(), out.data(), stride());
    return out;
  }

  int64_t m;
  Buffer<std::byte> bytes;
  std::unique_ptr<PackedWeight> weight;
  std::vector<float> x, before;
};

/// Column `column` of panel `panel`, read by the description of the layout in kernels.h: [k].
std::vector<double> unpacked_column(const PackedWeight& weight, int64_t panel, int64_t column) {
  const int64_t k = padded_k(weight.format, weight.spec.cols);
  const auto* bytes = reinterpret_cast<const uint8_t*>(weight.panel(panel));
  std::vector<double> values(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; i++) {
    if (weight.format == WeightFormat::bf16) {
      values[i] = bf16_to_f32(reinterpret_cast<const uint16_t*>(bytes)[(i / 2 * 32 + column) * 2 + i % 2]);
      continue;
    }
    const bool int4 = weight.format == WeightFormat::int4;
    const int64_t size = int4 ? 64 : 128, begin = i / size * size, in = i - begin, n = std::min(size, k - begin);
    const int64_t elements = int4 ? n * 16 : n * 32;
    const uint8_t* group = bytes + i / size * (int4 ? 64 * 16 + 128 : 128 * 32 + 128);
    const int packed = group[int4 ? (in / 8 * 32 + column) * 4 + in % 4 : (in / 4 * 32 + column) * 4 + in % 4];
    const int q = int4 ? (in % 8 < 4 ? packed & 15 : packed >> 4) - 8 : packed - 128;
    values[i] = static_cast<double>(q) * reinterpret_cast<const float*>(group + elements)[column];
  }
  return values;
}

/// Row of x as the format rounds it; integers as max|x| / 127 says, computed like the kernels so that ties agree.
std::vector<float> rounded_row(const Problem& p, int64_t row) {
  const WeightFormat format = p.weight->format;
  const int64_t k = p.weight->spec.cols;
  std::vector<float> a(p.x.begin() + row * k, p.x.begin() + (row + 1) * k);
  a.resize(static_cast<size_t>(padded_k(format, k)));
  if (format == WeightFormat::bf16) {
    for (float& v : a) v = round_to_bf16(v);
    return a;
  }
  const size_t group = static_cast<size_t>(group_size(format));
  for (size_t begin = 0; begin < a.size(); begin += group) {
    const size_t end = std::min(a.size(), begin + group);
    float largest = 0;
    for (size_t i = begin; i < end; i++) largest = std::max(largest, std::abs(a[i]));
    for (size_t i = begin; i < end; i++) a[i] = std::nearbyint(a[i] * (127.0f / largest)) * (largest / 127.0f);
  }
  return a;
}

void compare_with_oracle(const Kernels& kernels, const Problem& p, int threads) {
  const std::vector<float> out = p.run(kernels, 0, p.m, threads);
  const int64_t n = p.weight->outputs(), width = p.weight->panel_columns();
  double worst = 0;
  bool guards = true;
  std::vector<std::vector<double>> columns;
  for (int64_t panel = 0; panel < p.weight->panels(); panel++)
    for (int64_t c = 0; c < kPanel; c++) columns.push_back(unpacked_column(*p.weight, panel, c));
  for (int64_t i = 0; i < p.m; i++) {
    const std::vector<float> a = rounded_row(p, i);
    const auto dot = [&](int64_t panel, int64_t c, double& magnitude) {
      double sum = 0;
      for (size_t k = 0; k < a.size(); k++) {
        const double product = a[k] * columns[panel * kPanel + c][k];
        sum += product, magnitude += std::abs(product);
      }
      return sum;
    };
    for (int64_t j = 0; j < n; j++) {
      double magnitude = 0, y = dot(j / width, j % width, magnitude);
      if (p.epilogue() == Epilogue::silu_mul) {
        double up_magnitude = 0;
        const double gate = y, up = dot(j / width, width + j % width, up_magnitude);
        y = oracle::silu(gate) * up;
        magnitude = 1 + magnitude * std::abs(up) + up_magnitude * (1 + std::abs(gate));
      }
      if (p.epilogue() == Epilogue::add) y += p.before[i * p.stride() + j];
      worst = std::max(worst, std::abs(out[i * p.stride() + j] - y) / (1 + magnitude));
    }
    for (int64_t j = n; j < p.stride(); j++) guards = guards && out[i * p.stride() + j] == p.before[i * p.stride() + j];
  }
  CHECK_NEAR(worst, 0, 1e-6);
  CHECK(guards);
}

constexpr WeightFormat kFormats[] = {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};
constexpr WeightFormat kExact[] = {WeightFormat::f32, WeightFormat::int8, WeightFormat::int4};

/// Columns that fill no panel, k that fills no tile or group, k of several stretches.
const Shape kShapes[] = {{WeightKind::linear, 1, 24},   {WeightKind::linear, 33, 64},   {WeightKind::table, 47, 100},
                         {WeightKind::linear, 95, 192}, {WeightKind::gate_up, 16, 128}, {WeightKind::gate_up, 37, 320},
                         {WeightKind::table, 64, 1088}, {WeightKind::linear, 31, 1600}};

bool same(const float* a, const float* b, int64_t n) {
  return !std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float));
}

}  // namespace

#ifdef SDAR_HAS_avx512bf16
TEST("emulation: signed and unsigned bytes, sums that wrap, partial tiles") {
  if (!kernels_for("avx512bf16")) return;
  oracle::Random random(1);
  for (const bool is_signed : {true, false}) {
    for (const auto& [rows, depth] : {std::pair{16, 16}, {1, 16}, {5, 3}, {16, 1}}) {
      std::vector<int8_t> a(1024), b(1024);
      std::vector<int32_t> d(256), expected;
      for (auto& v : a) v = static_cast<int8_t>(random.below(256) - 128);
      for (auto& v : b) v = static_cast<int8_t>(random.below(256) - 128);
      for (auto& v : d) v = random.below(1000);
      d[0] = std::numeric_limits<int32_t>::max();
      a[0] = b[0] = 127, a[1] = -128;
      expected = d;
      for (int m = 0; m < rows; m++) {
        for (int n = 0; n < 16; n++) {
          int64_t sum = d[m * 16 + n];
          for (int k = 0; k < 4 * depth; k++) {
            const int8_t right = b[k / 4 * 64 + n * 4 + k % 4];
            sum += a[m * 64 + k] * (is_signed ? right : static_cast<uint8_t>(right));
          }
          expected[m * 16 + n] = static_cast<int32_t>(static_cast<uint32_t>(sum));
        }
      }
      amx_emulation::multiply(is_signed ? amx_emulation::Product::int8_signed : amx_emulation::Product::int8_unsigned,
                              rows, depth, a.data(), b.data(), d.data());
      CHECK(d == expected);
      CHECK(!amx_emulation::configured());
    }
  }
}

TEST("emulation: bf16 sums halves of pairs apart, flushes denormals, keeps NaN") {
  if (!kernels_for("avx512bf16")) return;
  const auto one = [](std::vector<float> a, std::vector<float> b, float d) {  // a dot product of up to 32
    std::vector<uint16_t> left(512), right(512);
    std::vector<float> out(256);
    out[0] = d;
    for (size_t i = 0; i < a.size(); i++) left[i] = f32_to_bf16(a[i]);
    for (size_t i = 0; i < b.size(); i++) right[i / 2 * 32 + i % 2] = f32_to_bf16(b[i]);
    amx_emulation::multiply(amx_emulation::Product::bf16, 1, 16, left.data(), right.data(), out.data());
    return out[0];
  };
  CHECK(one({1, 2, 3, 4}, {5, 6, 7, 8}, 0.5f) == 70.5f);
  // 2^24 + 1 rounds to 2^24; in the other half of the pairs the ones add up first.
  CHECK(one({0x1p24f, 1, 0, 1}, {1, 1, 0, 1}, 0) == 0x1p24f + 2);
  CHECK(one({0x1p24f, 0, 1, 0, 1, 0}, {1, 0, 1, 0, 1, 0}, 0) == 0x1p24f);
  CHECK(one({0x1p24f, 1, 0, 1}, {-1, 1, 0, 1}, 0x1p24f) == 2);
  CHECK(one({0x1p-130f}, {0x1p100f}, 0) == 0);  // a denormal factor
  CHECK(one({0x1p-70f}, {0x1p-70f}, 0) == 0);   // a denormal product
  CHECK(one({0}, {0}, 0x1p-130f) == 0);         // a denormal sum
  CHECK(one({0x1p-63f}, {0x1p-63f}, 0) == 0x1p-126f);
  CHECK(std::isnan(one({std::numeric_limits<float>::quiet_NaN()}, {1}, 0)));
  CHECK(std::isinf(one({0x1p127f}, {2}, 0)));
}
#endif

TEST("panels against sums in double, odd shapes, all epilogues, guards kept") {
  for (const Kernels* table : tables()) {
    uint64_t seed = 10;
    for (const WeightFormat format : kFormats) {
      for (const Shape& shape : kShapes) {
        for (const int64_t m : {1, 2, 15, 16, 17, 31, 32, 33, 48, 70}) {
          if (m > 33 && shape.k > 400 && m != 70) continue;
          compare_with_oracle(*table, Problem(shape.kind, format, shape.outputs, shape.k, m, seed++), 1);
        }
      }
    }
  }
}

TEST("f32 and quantised weights: the bits of avx512vnni") {
  const Kernels* vnni = kernels_for("avx512vnni");
  for (const Kernels* table : tables()) {
    uint64_t seed = 1000;
    for (const WeightFormat format : kExact) {
      for (const Shape& shape : kShapes) {
        for (const int64_t m : {1, 7, 16, 29, 70}) {
          const Problem p(shape.kind, format, shape.outputs, shape.k, m, seed++);
          CHECK(p.run(*table, 0, m) == p.run(*vnni, 0, m));
        }
      }
      const Problem groups(WeightKind::linear, format, 170, 72, 140, seed++);
      CHECK(groups.run(*table, 0, 140) == groups.run(*vnni, 0, 140));
    }
  }
}

TEST("a row's bits do not depend on m, on its place or on threads, m = 1 … 70") {
  for (const Kernels* table : tables()) {
    for (const WeightFormat format : kFormats) {
      for (const Shape& shape : {Shape{WeightKind::linear, 49, 832}, Shape{WeightKind::gate_up, 21, 152}}) {
        const Problem p(shape.kind, format, shape.outputs, shape.k, 70, 7);
        const std::vector<float> all = p.run(*table, 0, 70);
        for (int64_t m = 1; m <= 70; m++) {
          const int64_t first = m % 3 ? (70 - m) / 2 : 0;
          const std::vector<float> some = p.run(*table, first, m, m % 8 ? 1 : 3);
          if (!same(some.data(), all.data() + first * p.stride(), m * p.stride())) {
            check::fail(__FILE__, __LINE__,
                        std::string(name_of(table)) + ", " + sdar::name_of(format) + ", m " + std::to_string(m) +
                            " from row " + std::to_string(first));
          }
        }
      }
    }
  }
}

TEST("many rows: groups of panels, blocks in several passes, three threads") {
  for (const Kernels* table : tables()) {
    for (const WeightFormat format : kFormats) {
      const Problem p(WeightKind::linear, format, 200, 640, 300, 3);
      const std::vector<float> all = p.run(*table, 0, 300, 3);
      for (const int64_t first : {0, 31, 255, 292}) {
        const std::vector<float> some = p.run(*table, first, 8);
        CHECK(same(some.data(), all.data() + first * p.stride(), 8 * p.stride()));
      }
      // Two jobs of three panels, the last of them not full.
      compare_with_oracle(*table, Problem(WeightKind::linear, format, 170, 200, 131, 4), 1);
      compare_with_oracle(*table, Problem(WeightKind::gate_up, format, 90, 200, 131, 4), 1);
      const Problem deep(WeightKind::table, format, 40, 17000, 70, 5);  // blocks too large to pass together
      const std::vector<float> rows = deep.run(*table, 0, 70);
      const std::vector<float> last = deep.run(*table, 64, 6);
      CHECK(same(last.data(), rows.data() + 64 * deep.stride(), 6 * deep.stride()));
    }
  }
}

TEST("tiles are released after a job") {
  for (const Kernels* table : tables()) {
    const Problem p(WeightKind::linear, WeightFormat::int8, 33, 64, 5, 1);
    p.run(*table, 0, 5);
#ifdef SDAR_HAS_avx512bf16
    if (table == &amx_emulation::kKernels) CHECK(!amx_emulation::configured());
#endif
  }
}

TEST("a NaN stays in its row") {
  for (const Kernels* table : tables()) {
    for (const WeightFormat format : kFormats) {
      Problem p(WeightKind::linear, format, 40, 200, 20, 9);
      const std::vector<float> clean = p.run(*table, 0, 20);
      p.x[17 * 200 + 5] = std::numeric_limits<float>::quiet_NaN();
      const std::vector<float> out = p.run(*table, 0, 20);
      for (int64_t i = 0; i < 20; i++) {
        if (i != 17) CHECK(same(&out[i * p.stride()], &clean[i * p.stride()], 40));
        if (i == 17) CHECK(std::isnan(out[i * p.stride()]) && std::isnan(out[i * p.stride() + 39]));
      }
    }
  }
}

TEST("real tiles give the bits of the emulation") {
#ifdef SDAR_HAS_avx512bf16
  if (!real_tiles()) return void(std::printf("#   not run, this machine has no AMX\n"));
  for (const WeightFormat format : kFormats) {
    for (const Shape& shape : kShapes) {
      const Problem p(shape.kind, format, shape.outputs, shape.k, 70, 11);
      CHECK(p.run(*real_tiles(), 0, 70) == p.run(amx_emulation::kKernels, 0, 70));
    }
  }
#endif
}

TEST("the set is offered on machines with tiles only") {
  std::ifstream file("/proc/cpuinfo");
  std::string word;
  int found = 0;
  while (found < 3 && file >> word) found += word == "amx_tile" || word == "amx_int8" || word == "amx_bf16";
  if (found == 3) return;  // the system may still refuse
  CHECK(!real_tiles());
  for (const std::string& isa : instruction_sets()) CHECK(isa != "avx512amx");
  CHECK_THROWS(code::kInvalidOption, "avx512amx", choose_isa("avx512amx"));
}

int main(int c, char** v) {
  const bool emulated = !tables().empty() && tables().front() != real_tiles();
  std::printf("# avx512amx: %s\n", real_tiles() && emulated ? "real tiles and scalar emulation"
                                   : real_tiles()           ? "real tiles"
                                   : emulated               ? "scalar emulation, this machine has no AMX"
                                                            : "not run, this machine has no AVX-512 BF16");
  return check::run(c, v);
}
