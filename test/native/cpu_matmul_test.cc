// Packing, products and embedding of the fast CPU backend in every instruction set of this machine, against formulas
// over what the packed bytes stand for; a row's bits whatever the batch and the threads.
#include <cstdlib>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "cpu_kernels.h"

using namespace sdar;
using namespace oracle;

namespace {

struct Shape {
  int rows, cols;
};
constexpr Shape kShapes[] = {{1, 1}, {33, 24}, {64, 96}, {30, 160}, {96, 128}, {7, 129}, {130, 257}, {66, 640}};
constexpr int kRows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 33, 70};

Held random_weight(Backend& backend, Random& random, WeightKind kind, WeightFormat format, int rows, int cols) {
  const double scale = 1 / std::sqrt(static_cast<double>(cols));
  if (kind == WeightKind::gate_up) {
    return hold(backend, kind, format,
                {random_matrix(random, rows, cols, scale), random_matrix(random, rows, cols, scale)});
  }
  if (rows < 3) return hold(backend, kind, format, {random_matrix(random, rows, cols, scale)});
  return hold(backend, kind, format,
              {random_matrix(random, 2, cols, scale), random_matrix(random, rows - 2, cols, scale)});
}

std::vector<float> norm_linear(HostBackend& backend, const Matrix& x, int m, const Held& norm, const Held& weight) {
  const int64_t n = weight.weight->spec.rows / (weight.weight->spec.kind == WeightKind::gate_up ? 2 : 1);
  std::vector<float> out(static_cast<size_t>(m * n), kNan);
  backend.norm_linear({.x = x.data.data(), .m = m, .norm = norm, .weight = weight, .out = out.data()});
  return out;
}

std::string where(const std::string& isa, WeightFormat format, Shape s, int m) {
  return isa + " " + name_of(format) + " [" + std::to_string(s.rows) + ", " + std::to_string(s.cols) + "] m " +
         std::to_string(m);
}

void near(const std::vector<float>& a, const std::vector<float>& b, double allowed, const std::string& what) {
  const double error = relative_error(a, b);
  if (!(error <= allowed)) check::fail(__FILE__, __LINE__, what + ": error " + std::to_string(error));
}

}  // namespace

TEST("instruction sets: best first, portable last, forced by option or environment, refused by name") {
  const auto sets = cpu::instruction_sets();
  CHECK(!sets.empty() && sets.back() == "portable");
  for (const auto& isa : sets) {
    CHECK(cpu::make_backend({.threads = 1, .isa = isa})->isa() == isa);
    setenv("SDAR_ISA", isa.c_str(), 1);
    CHECK(cpu::make_backend({.threads = 1, .isa = ""})->isa() == isa);
  }
  setenv("SDAR_ISA", "z80", 1);
  CHECK_THROWS(code::kInvalidOption, "SDAR_ISA is \"z80\"", cpu::make_backend({}));
  unsetenv("SDAR_ISA");
  CHECK(cpu::make_backend({.threads = 2, .isa = ""})->isa() == sets.front());
  CHECK_THROWS(code::kInvalidOption, "isa is \"mmx\"", cpu::make_backend({.threads = 1, .isa = "mmx"}));
  std::string ran;
  for (const auto& isa : sets) ran += " " + isa;
  std::printf("# instruction sets that ran:%s\n", ran.c_str());
}

TEST("packing: what the bytes stand for is the checkpoint's numbers, rounded") {
  if (fast_sets().empty()) return;
  Random random(1);
  auto backend = fast_backend(fast_sets()[0], 1, 64);
  for (WeightFormat format : kFormats) {
    for (const Shape& s : kShapes) {
      const Matrix a = random_matrix(random, s.rows, s.cols), b = random_matrix(random, s.rows, s.cols, 0.01);
      for (WeightKind kind : {WeightKind::linear, WeightKind::gate_up}) {
        Matrix both = a;
        both.rows *= 2;
        both.data.insert(both.data.end(), b.data.begin(), b.data.end());
        const Matrix got = unpacked(hold(*backend, kind, format, {a, b}));
        if (format == WeightFormat::f32) CHECK(got.data == both.data);
        if (format == WeightFormat::bf16) CHECK(got.data == rounded(both, format).data);
        if (format == WeightFormat::int8) near(got.data, rounded(both, format).data, 1e-6, where("", format, s, 0));
        if (format != WeightFormat::int4) continue;
        // The search finds scales no worse than the plain ones, in every group of 64.
        const Matrix plain = rounded(both, format, false, 64);
        for (int64_t row = 0; row < both.rows; row++) {
          for (int64_t k = 0; k < both.cols; k += 64) {
            double error = 0, plain_error = 0;
            for (int64_t i = k; i < std::min(k + 64, both.cols); i++) {
              const double exact = both.row(row)[i];
              error += std::pow(got.row(row)[i] - exact, 2);
              plain_error += std::pow(plain.row(row)[i] - exact, 2);
            }
            if (error > plain_error * 1.0001 + 1e-12) check::fail(__FILE__, __LINE__, where("", format, s, int(row)));
          }
        }
      }
    }
  }
}

TEST("packing: f16 and bf16 sources, tables stay at eight bits, wrong parts are refused") {
  if (fast_sets().empty()) return;
  auto backend = fast_backend(fast_sets()[0], 1, 3);
  const uint16_t f16[] = {0x3c00, 0x0001, 0xfbff, 0x3555, 0x8400, 0x0000}, bf16[] = {0x3f80, 0x0001, 0xff7f};
  const SourceTensor parts[] = {{reinterpret_cast<const std::byte*>(f16), DType::f16, 2, 3},
                                {reinterpret_cast<const std::byte*>(bf16), DType::bf16, 1, 3}};
  const WeightSpec spec{WeightKind::table, WeightFormat::f32, 3, 3};
  alignas(64) std::byte packed[3 * 128];
  CHECK(backend->packed_bytes(spec) == sizeof packed && backend->pack_units(spec) == 1);
  backend->pack(spec, parts, 0, 1, packed);
  const auto table = backend->adopt(spec, packed);
  float x[9];
  const int32_t ids[] = {0, 1, 2};
  embed(*backend, *table, ids, x);
  for (int i = 0; i < 6; i++) CHECK(x[i] == f16_to_f32(f16[i]));
  for (int i = 0; i < 3; i++) CHECK(x[6 + i] == bf16_to_f32(bf16[i]));
  WeightSpec four{WeightKind::table, WeightFormat::int4, 40, 200}, eight = four;
  eight.format = WeightFormat::int8;
  CHECK(backend->packed_bytes(four) == backend->packed_bytes(eight));
  CHECK_THROWS(code::kInternal, "[4, 3]",
               backend->pack({WeightKind::table, WeightFormat::f32, 4, 3}, parts, 0, 1, packed));
  CHECK_THROWS(code::kInternal, "[3, 4]",
               backend->pack({WeightKind::linear, WeightFormat::f32, 3, 4}, parts, 0, 1, packed));
  CHECK_THROWS(code::kInternal, "[3, 3]",
               backend->pack({WeightKind::gate_up, WeightFormat::f32, 3, 3}, parts, 0, 1, packed));
}

TEST("embed: rows of the table, whatever the format") {
  Random random(2);
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : kFormats) {
      for (const Shape& s : {Shape{1, 1}, Shape{333, 96}, Shape{65, 257}}) {
        auto backend = fast_backend(isa, 2, s.cols);
        const Held table = hold(*backend, WeightKind::table, format, {random_matrix(random, s.rows, s.cols)});
        const Matrix values = unpacked(table);
        std::vector<int32_t> ids(100);
        for (int32_t& id : ids) id = random.below(s.rows);
        std::vector<float> x(ids.size() * s.cols, kNan);
        embed(*backend, *table.weight, ids, x.data());
        for (size_t i = 0; i < ids.size(); i++) {
          CHECK(!std::memcmp(&x[i * s.cols], values.row(ids[i]), s.cols * sizeof(float)));
        }
      }
    }
  }
}

TEST("norm_linear, gate_up and linear_add against the formula: every set, format and odd shape") {
  Random random(3);
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : kFormats) {
      for (const Shape& s : kShapes) {
        auto backend = fast_backend(isa, 2, s.cols);
        const Held norm = hold_vector(*backend, random.floats(s.cols, 0.5, 1.5));
        const std::vector<float> norm_values(cpu::packed(norm).vector(), cpu::packed(norm).vector() + s.cols);
        const Held linear = random_weight(*backend, random, WeightKind::linear, format, s.rows, s.cols);
        const Held gate_up = random_weight(*backend, random, WeightKind::gate_up, format, s.rows, s.cols);
        const Matrix linear_values = unpacked(linear), both = unpacked(gate_up);
        for (int m : kRows) {
          const Matrix x = random_matrix(random, m, s.cols, 3);
          const Matrix h = rounded_activations(rms_norm(x, norm_values, 1e-6), format);
          near(norm_linear(*backend, x, m, norm, linear), product(h, linear_values).data, tolerance(format),
               where(isa, format, s, m));
          const Matrix y = product(h, both);
          std::vector<float> expected;
          for (int i = 0; i < m; i++) {
            for (int j = 0; j < s.rows; j++) {
              expected.push_back(static_cast<float>(silu(y.row(i)[j]) * y.row(i)[s.rows + j]));
            }
          }
          near(norm_linear(*backend, x, m, norm, gate_up), expected, 3 * tolerance(format),
               "gate_up " + where(isa, format, s, m));

          const std::vector<float> before = random.floats(static_cast<size_t>(m * s.rows));
          std::vector<float> after = before, sum = product(rounded_activations(x, format), linear_values).data;
          for (size_t i = 0; i < sum.size(); i++) sum[i] += before[i];
          backend->linear_add({.in = x.data.data(), .m = m, .weight = linear, .x = after.data()});
          near(after, sum, tolerance(format), "add " + where(isa, format, s, m));
        }
      }
    }
  }
}

TEST("a row's bits do not depend on the batch, its place in it or the threads") {
  Random random(4);
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : kFormats) {
      const Shape s{200, 320};
      const Matrix x = random_matrix(random, 70, s.cols);
      std::vector<float> first, first_up;
      for (int threads : {1, 2, 3}) {
        auto backend = fast_backend(isa, threads, s.cols);
        CHECK(backend->threads() == threads);
        Random same(5);
        const Held norm = hold_vector(*backend, same.floats(s.cols, 0.5, 1.5));
        const Held linear = random_weight(*backend, same, WeightKind::linear, format, s.rows, s.cols);
        const Held gate_up = random_weight(*backend, same, WeightKind::gate_up, format, s.rows, s.cols);
        if (first.empty()) {
          first = norm_linear(*backend, x, 70, norm, linear);
          first_up = norm_linear(*backend, x, 70, norm, gate_up);
        }
        for (int m = 1; m <= 70; m++) {
          const int row = 70 - m;  // also at another place
          const Matrix part{m, s.cols, {x.row(row), x.row(row) + m * s.cols}};
          const auto y = norm_linear(*backend, part, m, norm, linear),
                     up = norm_linear(*backend, part, m, norm, gate_up);
          const bool equal = !std::memcmp(y.data(), &first[row * s.rows], y.size() * sizeof(float)) &&
                             !std::memcmp(up.data(), &first_up[row * s.rows], up.size() * sizeof(float));
          if (!equal) check::fail(__FILE__, __LINE__, where(isa, format, s, m) + " threads " + std::to_string(threads));
        }
      }
    }
  }
}

TEST("no rows: nothing happens") {
  for (const std::string& isa : fast_sets()) {
    auto backend = fast_backend(isa, 2, 64);
    const Held norm = hold_vector(*backend, std::vector<float>(64, 1.0f));
    for (WeightFormat format : kFormats) {
      const Held weight = hold(*backend, WeightKind::linear, format, {{8, 64, std::vector<float>(8 * 64, 1.0f)}});
      backend->norm_linear({.x = nullptr, .m = 0, .norm = norm, .weight = weight, .out = nullptr});
      backend->linear_add({.in = nullptr, .m = 0, .weight = weight, .x = nullptr});
      lm_head(*backend, {.x = nullptr, .norm = norm, .weight = weight}, {}, {});
      embed(*backend, *weight.weight, {}, nullptr);
    }
  }
}

TEST("more threads than panels: the rows are split, and come out the same, of a weight that caches hold and a larger") {
  Random random(9);
  for (const Shape& s : {Shape{40, 640}, Shape{40, 32768}}) {
    const int m = 96;
    const Matrix x = random_matrix(random, m, s.cols), weights = random_matrix(random, s.rows, s.cols);
    for (WeightFormat format : kFormats) {
      std::vector<float> out[2];
      for (int i = 0; i < 2; i++) {
        auto backend = fast_backend("", i ? 4 : 1, s.cols);
        if (backend->isa() == "portable") return;
        const Held weight = hold(*backend, WeightKind::linear, format, {weights});
        out[i].assign(static_cast<size_t>(m * s.rows), 1.0f);
        backend->linear_add({.in = x.data.data(), .m = m, .weight = weight, .x = out[i].data()});
      }
      CHECK(!std::memcmp(out[0].data(), out[1].data(), out[0].size() * sizeof(float)));
    }
  }
}

TEST("a NaN or infinity spoils its own row or column only, and is seen there") {
  Random random(6);
  const Shape s{70, 200};
  for (const std::string& isa : fast_sets()) {
    auto backend = fast_backend(isa, 2, s.cols);
    for (WeightFormat format : kFormats) {
      for (float bad : {kNan, -kNan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        Matrix weights = random_matrix(random, s.rows, s.cols), x = random_matrix(random, 9, s.cols);
        weights.data[37 * s.cols + 130] = bad;
        x.data[4 * s.cols + 199] = bad;
        const Held weight = hold(*backend, WeightKind::linear, format, {weights});
        std::vector<float> out(9 * s.rows, 0);
        backend->linear_add({.in = x.data.data(), .m = 9, .weight = weight, .x = out.data()});
        for (int i = 0; i < 9; i++) {
          for (int j = 0; j < s.rows; j++) CHECK(std::isfinite(out[i * s.rows + j]) == (i != 4 && j != 37));
        }
      }
    }
  }
}

TEST("zero rows and subnormal numbers give finite results") {
  for (const std::string& isa : fast_sets()) {
    auto backend = fast_backend(isa, 1, 100);
    for (WeightFormat format : kFormats) {
      Matrix weights{40, 100, std::vector<float>(4000, 1e-42f)};
      const Held weight = hold(*backend, WeightKind::linear, format, {weights});
      const Held norm = hold_vector(*backend, std::vector<float>(100, 1.0f));
      for (float value : {0.0f, 1e-42f, 1e-30f}) {
        const Matrix x{2, 100, std::vector<float>(200, value)};
        for (float y : norm_linear(*backend, x, 2, norm, weight)) CHECK_NEAR(y, 0, 1e-20);
      }
    }
  }
}

TEST("moe: against the formula, and the same bits in any batch") {
  Random random(7);
  const int hidden = 96, inner = 40, experts = 7, top_k = 3, m = 37;
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : kFormats) {
      std::vector<float> first;
      for (int threads : {1, 2}) {
        auto backend = fast_backend(isa, threads, hidden);
        Random same(8);
        const std::vector<float> norm_values = same.floats(hidden, 0.5, 1.5);
        const Held norm = hold_vector(*backend, norm_values);
        const Matrix router = random_matrix(same, experts, hidden, 0.3);
        const Held held_router = hold(*backend, WeightKind::linear, WeightFormat::f32, {router});
        std::vector<Held> gate_up, down;
        std::vector<const Weight*> gate_up_handles, down_handles;
        for (int e = 0; e < experts; e++) {
          gate_up.push_back(random_weight(*backend, same, WeightKind::gate_up, format, inner, hidden));
          down.push_back(random_weight(*backend, same, WeightKind::linear, format, hidden, inner));
          gate_up_handles.push_back(gate_up[e]);
          down_handles.push_back(down[e]);
        }
        const Matrix x = random_matrix(same, m, hidden);
        for (bool renormalise : {true, false}) {
          const auto run = [&](int row, int rows) {
            std::vector<float> y(x.row(row), x.row(row) + rows * hidden);
            backend->moe({y.data(), rows, norm, held_router, gate_up_handles, down_handles, top_k, renormalise});
            return y;
          };
          const std::vector<float> got = run(0, m);
          for (int row : {0, 5, 36}) {
            CHECK(!std::memcmp(run(row, 1).data(), &got[row * hidden], hidden * sizeof(float)));
          }
          if (!renormalise) {
            if (first.empty()) first = got;
            CHECK(!std::memcmp(first.data(), got.data(), got.size() * sizeof(float)));
          }
          std::vector<float> expected = x.data;
          const Matrix h = rms_norm(x, norm_values, 1e-6), logits = product(h, router);
          for (int row = 0; row < m; row++) {
            const std::vector<double> p = softmax({logits.row(row), static_cast<size_t>(experts)});
            std::vector<int> order(experts);
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
            double chosen = 0;
            for (int i = 0; i < top_k; i++) chosen += p[order[i]];
            const Matrix one{1, hidden, {h.row(row), h.row(row) + hidden}};
            for (int i = 0; i < top_k; i++) {
              const Matrix both = product(rounded_activations(one, format), unpacked(gate_up[order[i]]));
              Matrix mlp{1, inner, std::vector<float>(inner)};
              for (int j = 0; j < inner; j++)
                mlp.data[j] = static_cast<float>(silu(both.data[j]) * both.data[inner + j]);
              const Matrix y = product(rounded_activations(mlp, format), unpacked(down[order[i]]));
              const double weight = p[order[i]] / (renormalise ? chosen : 1);
              for (int j = 0; j < hidden; j++) expected[row * hidden + j] += static_cast<float>(weight * y.data[j]);
            }
          }
          near(got, expected, 3 * tolerance(format), "moe " + isa + " " + name_of(format));
        }
      }
    }
  }
}

int main(int c, char** v) { return check::run(c, v); }
