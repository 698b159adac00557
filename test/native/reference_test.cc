// The portable backend against hand-checked cases and naive formulas (oracle.h), and its contract: a row's numbers do
// not depend on the batch around it.
#include <string>

#include "check.h"
#include "reference_backend.h"

using namespace sdar;
using namespace oracle;

// Sanitizers end the process when an allocation is far too large, unless told that null is an answer.
#define SDAR_EXPORTED extern "C" __attribute__((visibility("default")))
SDAR_EXPORTED const char* __asan_default_options() { return "allocator_may_return_null=1"; }
SDAR_EXPORTED const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

TEST("says what it is") {
  const auto backend = cpu::make_reference_backend(8);
  CHECK(backend->device() == "cpu" && backend->isa() == "portable" && backend->threads() == 1);
  CHECK(!backend->layout_id().empty());
}

TEST("half precision: conversions of special values, and rounding to even") {
  CHECK(f16_to_f32(0x3c00) == 1 && f16_to_f32(0xc000) == -2 && f16_to_f32(0x7bff) == 65504);
  CHECK(f16_to_f32(0x0001) == 0x1p-24f && f16_to_f32(0x83ff) == -1023 * 0x1p-24f && f16_to_f32(0x0400) == 0x1p-14f);
  CHECK(std::signbit(f16_to_f32(0x8000)) && f16_to_f32(0x8000) == 0);
  CHECK(std::isinf(f16_to_f32(0x7c00)) && f16_to_f32(0xfc00) < 0 && std::isnan(f16_to_f32(0x7e00)));
  CHECK(round_to_bf16(1 + 0x1p-8f) == 1 && round_to_bf16(1 + 3 * 0x1p-8f) == 1 + 0x1p-6f);
  CHECK(round_to_bf16(1 + 0x1p-8f + 0x1p-20f) == 1 + 0x1p-7f);
  CHECK(std::isnan(round_to_bf16(kNan)) && std::isinf(round_to_bf16(std::numeric_limits<float>::max())));
  CHECK(std::isnan(round_to_bf16(std::bit_cast<float>(0x7f800001u))));
}

TEST("packing: every format and odd size looks up as its rounding") {
  Random random(1);
  for (WeightFormat format : kFormats) {
    for (auto [rows, cols] : {std::pair{1, 1}, {3, 7}, {65, 128}, {130, 129}, {64, 300}}) {
      auto backend = backend_for(shape_of(cols));
      const Matrix a = random_matrix(random, rows, cols), b = random_matrix(random, 2, cols, 0.01);
      const Held table = hold(*backend, WeightKind::table, format, {a, b});
      const WeightFormat held = format == WeightFormat::int4 ? WeightFormat::int8 : format;  // tables stay at 8 bits
      std::vector<float> expected = rounded(a, held).data;
      const std::vector<float> rest = rounded(b, held).data;
      expected.insert(expected.end(), rest.begin(), rest.end());
      CHECK(looked_up(*backend, table) == expected);
    }
  }
}

TEST("packing: f16 and bf16 sources are exact") {
  auto backend = backend_for(shape_of(3));
  const uint16_t f16[] = {0x3c00, 0x0001, 0xfbff, 0x3555, 0x8400, 0x0000}, bf16[] = {0x3f80, 0x0001, 0xff7f};
  const SourceTensor parts[] = {{reinterpret_cast<const std::byte*>(f16), DType::f16, 2, 3},
                                {reinterpret_cast<const std::byte*>(bf16), DType::bf16, 1, 3}};
  const WeightSpec spec{WeightKind::table, WeightFormat::f32, 3, 3};
  CHECK(backend->packed_bytes(spec) == 36);
  std::vector<float> packed(9);
  backend->pack(spec, parts, 0, backend->pack_units(spec), reinterpret_cast<std::byte*>(packed.data()));
  for (int i = 0; i < 6; i++) CHECK(packed[i] == f16_to_f32(f16[i]));
  for (int i = 0; i < 3; i++) CHECK(packed[6 + i] == bf16_to_f32(bf16[i]));
  const WeightSpec wrong{WeightKind::table, WeightFormat::f32, 4, 3};
  CHECK_THROWS(code::kInternal, "[4, 3]",
               backend->pack(wrong, parts, 0, 1, reinterpret_cast<std::byte*>(packed.data())));
}

TEST("norm_linear: by hand") {
  ModelShape shape = shape_of(2);
  shape.rms_eps = 0;
  auto backend = backend_for(shape);
  const Held norm = hold_vector(*backend, {1, 2});
  const Held weight = hold(*backend, WeightKind::linear, WeightFormat::f32, {{1, 2, {10, 0}}, {2, 2, {0, 10, 1, -1}}});
  const std::vector<float> x{3, 4};  // mean square 12.5
  std::vector<float> out(3, kNan);
  backend->norm_linear({.x = x.data(), .m = 1, .norm = norm, .weight = weight, .out = out.data()});
  const double r = std::sqrt(12.5);
  CHECK_NEAR(out[0], 30 / r, 1e-5);
  CHECK_NEAR(out[1], 80 / r, 1e-5);
  CHECK_NEAR(out[2], -5 / r, 1e-6);
}

TEST("norm_linear and linear_add: every format against the formula") {
  Random random(2);
  for (WeightFormat format : kFormats) {
    for (auto [m, n, k] : {std::tuple{1, 1, 1}, {3, 5, 7}, {2, 33, 128}, {5, 70, 131}, {9, 16, 400}}) {
      auto backend = backend_for(shape_of(k));
      const Matrix x = random_matrix(random, m, k), w = random_matrix(random, n, k), w2 = random_matrix(random, n, k);
      const std::vector<float> norm = random.floats(k, 0.5, 2);
      const Held held_norm = hold_vector(*backend, norm);
      const Matrix h = rounded_activations(rms_norm(x, norm, 1e-6f), format);
      // An activation in the middle between two integers may fall either way.
      const double tolerance = format == WeightFormat::f32 ? 1e-6 : format == WeightFormat::bf16 ? 1e-4 : 2e-3;

      const Held linear = hold(*backend, WeightKind::linear, format, {w});
      std::vector<float> out(m * n, kNan);
      backend->norm_linear({.x = x.data.data(), .m = m, .norm = held_norm, .weight = linear, .out = out.data()});
      CHECK_NEAR(relative_error(out, product(h, held_values(linear, w)).data), 0, tolerance);

      const Held gate_up = hold(*backend, WeightKind::gate_up, format, {w, w2});
      std::fill(out.begin(), out.end(), kNan);
      backend->norm_linear({.x = x.data.data(), .m = m, .norm = held_norm, .weight = gate_up, .out = out.data()});
      Matrix expected = product(h, held_values(gate_up, w));
      const Matrix up = product(h, held_values(gate_up, w2, n));
      for (size_t i = 0; i < up.data.size(); i++) {
        expected.data[i] = static_cast<float>(silu(expected.data[i]) * up.data[i]);
      }
      CHECK_NEAR(relative_error(out, expected.data), 0, tolerance * 2);

      std::vector<float> sum(m * n, 0.25f);
      backend->linear_add({.in = x.data.data(), .m = m, .weight = linear, .x = sum.data()});
      expected = product(rounded_activations(x, format), held_values(linear, w));
      for (float& v : expected.data) v += 0.25f;
      CHECK_NEAR(relative_error(sum, expected.data), 0, tolerance);
    }
  }
}

TEST("rows do not depend on how many there are") {
  Random random(3);
  const int m = 9, n = 40, k = 150;
  for (WeightFormat format : kFormats) {
    auto backend = backend_for(shape_of(k));
    const Matrix x = random_matrix(random, m, k);
    const Held norm = hold_vector(*backend, random.floats(k, 0.5, 2));
    const Held gate_up =
        hold(*backend, WeightKind::gate_up, format, {random_matrix(random, n, k), random_matrix(random, n, k)});
    std::vector<float> all(m * n), one(n);
    backend->norm_linear({.x = x.data.data(), .m = m, .norm = norm, .weight = gate_up, .out = all.data()});
    for (int i = 0; i < m; i++) {
      backend->norm_linear({.x = x.row(i), .m = 1, .norm = norm, .weight = gate_up, .out = one.data()});
      CHECK(std::equal(one.begin(), one.end(), all.begin() + i * n));
    }
  }
}

TEST("a NaN or infinity in the weights or the activations shows in the result") {
  auto backend = backend_for(shape_of(130));
  for (WeightFormat format : kFormats) {
    for (float bad : {kNan, std::numeric_limits<float>::infinity()}) {
      Matrix x{1, 130, std::vector<float>(130, 1)}, w{1, 130, std::vector<float>(130, 1)}, bad_w = w, bad_x = x;
      bad_w.data[129] = bad_x.data[3] = bad;
      float out = 0;
      backend->linear_add(
          {.in = bad_x.data.data(), .m = 1, .weight = hold(*backend, WeightKind::linear, format, {w}), .x = &out});
      CHECK(!std::isfinite(out));
      out = 0;
      backend->linear_add(
          {.in = x.data.data(), .m = 1, .weight = hold(*backend, WeightKind::linear, format, {bad_w}), .x = &out});
      CHECK(!std::isfinite(out));
    }
  }
}

TEST("moe: against the formula, renormalised and not, in every format") {
  Random random(4);
  const int m = 5, hidden = 33, inner = 20, experts = 6;
  for (WeightFormat format : kFormats) {
    for (bool renormalise : {false, true}) {
      auto backend = backend_for(shape_of(hidden));
      const Matrix x = random_matrix(random, m, hidden), router = random_matrix(random, experts, hidden);
      const std::vector<float> norm = random.floats(hidden, 0.5, 2);
      const Held held_norm = hold_vector(*backend, norm),
                 held_router = hold(*backend, WeightKind::linear, WeightFormat::f32, {router});
      std::vector<Matrix> gate, up, down;
      std::vector<Held> held;
      std::vector<const Weight*> gate_up_views, down_views;
      for (int e = 0; e < experts; e++) {
        gate.push_back(random_matrix(random, inner, hidden));
        up.push_back(random_matrix(random, inner, hidden));
        down.push_back(random_matrix(random, hidden, inner));
        held.push_back(hold(*backend, WeightKind::gate_up, format, {gate[e], up[e]}));
        gate_up_views.push_back(held.back());
        held.push_back(hold(*backend, WeightKind::linear, format, {down[e]}));
        down_views.push_back(held.back());
      }
      const Matrix h = rms_norm(x, norm, 1e-6f), scores = product(h, router);
      std::vector<float> expected = x.data, got = x.data;
      for (int i = 0; i < m; i++) {
        const std::vector<double> p = softmax({scores.row(i), static_cast<size_t>(experts)});
        std::vector<int> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
        for (int j = 0; j < 2; j++) {
          const double weight = p[order[j]] / (renormalise ? p[order[0]] + p[order[1]] : 1);
          const Matrix row{1, hidden, {h.row(i), h.row(i) + hidden}};
          const Matrix y = mlp(row, gate[order[j]], up[order[j]], down[order[j]]);
          for (int c = 0; c < hidden; c++) expected[i * hidden + c] += static_cast<float>(weight * y.data[c]);
        }
      }
      backend->moe({.x = got.data(),
                    .m = m,
                    .norm = held_norm,
                    .router = held_router,
                    .gate_up = gate_up_views,
                    .down = down_views,
                    .top_k = 2,
                    .renormalise = renormalise});
      const double tolerance[] = {1e-5, 0.02, 0.03, 0.35};  // the formula knows no rounding of weights
      CHECK_NEAR(relative_error(got, expected), 0, tolerance[static_cast<int>(format)]);
    }
  }
}

TEST("moe: equal experts go to the lower ones") {
  auto backend = backend_for(shape_of(1));
  const Held norm = hold_vector(*backend, {1}),
             router = hold(*backend, WeightKind::linear, WeightFormat::f32, {{3, 1, {0, 0, 0}}});
  std::vector<Held> held;
  std::vector<const Weight*> gate_up, down;
  for (int e = 0; e < 3; e++) {
    held.push_back(hold(*backend, WeightKind::gate_up, WeightFormat::f32, {{1, 1, {1}}, {1, 1, {1}}}));
    gate_up.push_back(held.back());
    held.push_back(
        hold(*backend, WeightKind::linear, WeightFormat::f32, {{1, 1, {std::pow(10.0f, static_cast<float>(e))}}}));
    down.push_back(held.back());
  }
  float x = 1;
  backend->moe({.x = &x,
                .m = 1,
                .norm = norm,
                .router = router,
                .gate_up = gate_up,
                .down = down,
                .top_k = 2,
                .renormalise = true});
  CHECK_NEAR(x, 1 + silu(1) * (0.5 * 1 + 0.5 * 10), 1e-4);
}

TEST("attention: RoPE by hand") {
  // head_dim 2, one head: position p turns by p radians; two positions in one block.
  ModelShape shape = shape_of(2, 1, 1, 2);
  shape.rms_eps = 0;
  auto backend = backend_for(shape);
  const Held norm = hold_vector(*backend, {1, 1});
  const int32_t page = 0;
  const Segment segment{.row = 0, .rows = 2, .position = 0, .block_length = 2, .pages = &page};
  backend->begin_step({.segments = {&segment, 1}, .rows = 2});
  // every q and k is (1, 1) after the norm; values are 1 and 3
  std::vector<float> qkv{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3}, out(4, kNan);
  backend->attention({.layer = 0, .qkv = qkv.data(), .out = out.data(), .q_norm = norm, .k_norm = norm});
  const double near = std::exp(2 / std::sqrt(2)), far = std::exp(2 * std::cos(1.0) / std::sqrt(2));
  CHECK_NEAR(out[0], (near * 1 + far * 3) / (near + far), 1e-6);
  CHECK_NEAR(out[2], (far * 1 + near * 3) / (near + far), 1e-6);
}

TEST("attention: against the formula; pages scattered, in chunks, among others: same bits") {
  Random random(5);
  const struct {
    int heads, kv_heads, head_dim, block_length, positions;
  } cases[] = {{1, 1, 2, 1, 5},   {4, 2, 6, 4, 132},   {6, 2, 16, 3, 129},
               {3, 3, 24, 8, 72}, {8, 1, 10, 64, 192}, {2, 1, 8, 33, 99}};
  for (const auto& c : cases) {
    for (KvFormat format : {KvFormat::f32, KvFormat::bf16, KvFormat::int8}) {
      const ModelShape shape = shape_of(8, c.heads, c.kv_heads, c.head_dim, 2);
      const int width = (c.heads + 2 * c.kv_heads) * c.head_dim, out_width = c.heads * c.head_dim;
      auto backend = backend_for(shape, {16, format});
      const std::vector<float> q_norm = random.floats(c.head_dim, 0.5, 2), k_norm = random.floats(c.head_dim, 0.5, 2);
      const Held held_q = hold_vector(*backend, q_norm), held_k = hold_vector(*backend, k_norm);
      const Matrix qkv = random_matrix(random, c.positions, width),
                   other = random_matrix(random, c.block_length, width);

      // The whole sequence in one step, in layer 1; layer 0 holds something else.
      const int32_t pages[] = {3, 0, 9, 5, 7, 2}, other_pages[] = {1, 4}, chunk_pages[] = {15, 14, 6, 8, 10, 11};
      const auto run = [&](std::vector<Segment> segments, std::vector<float> rows, int layer) {
        const int m = static_cast<int>(rows.size()) / width;
        std::vector<float> out(static_cast<size_t>(m) * out_width, kNan);
        backend->begin_step({.segments = segments, .rows = m});
        backend->attention({.layer = layer, .qkv = rows.data(), .out = out.data(), .q_norm = held_q, .k_norm = held_k});
        return out;
      };
      const Segment whole{.row = 0, .rows = c.positions, .position = 0, .block_length = c.block_length, .pages = pages};
      run({whole}, random.floats(qkv.data.size()), 0);
      const std::vector<float> out = run({whole}, qkv.data, 1);
      const Matrix expected = oracle::attention(qkv, shape, c.block_length, format, q_norm, k_norm);
      // A key between two bf16 or int8 values may fall either way.
      CHECK_NEAR(relative_error(out, expected.data), 0, format == KvFormat::f32 ? 1e-5 : 5e-3);

      // Block by block in other pages, each step beside a block of another sequence that comes first.
      for (int p = 0; p < c.positions; p += c.block_length) {
        std::vector<float> rows = other.data;
        rows.insert(rows.end(), qkv.row(p), qkv.row(p) + static_cast<size_t>(c.block_length) * width);
        const std::vector<float> both = run(
            {{.row = 0, .rows = c.block_length, .position = 0, .block_length = c.block_length, .pages = other_pages},
             {.row = c.block_length,
              .rows = c.block_length,
              .position = p,
              .block_length = c.block_length,
              .pages = chunk_pages}},
            rows, 1);
        CHECK(std::equal(both.begin() + c.block_length * out_width, both.end(),
                         out.begin() + static_cast<size_t>(p) * out_width));
      }
    }
  }
}

TEST("attention: a cache that cannot be had is refused") {
  auto backend = cpu::make_reference_backend(1);
  const ModelShape shape = shape_of(64, 8, 8, 128, 28);
  CHECK(backend->page_bytes(shape, KvFormat::f32) == 28u * 2 * 8 * 64 * 128 * 4);
  CHECK(backend->page_bytes(shape, KvFormat::int8) == 28u * 2 * 8 * 64 * (128 + 4));
  CHECK_THROWS(code::kOutOfMemory, "KV pages", backend->configure_ops(shape, {int64_t{1} << 60, KvFormat::f32}, 8));
  CHECK_THROWS(code::kOutOfMemory, "KV pages", backend->configure_ops(shape, {int64_t{1} << 34, KvFormat::f32}, 8));
}

TEST("allocate: zeroed and aligned") {
  auto backend = cpu::make_reference_backend(1);
  for (size_t n : {0, 1, 1000}) {
    const float* p = backend->allocate(n);
    CHECK(reinterpret_cast<uintptr_t>(p) % 64 == 0);
    CHECK(std::all_of(p, p + n, [](float v) { return v == 0; }));
  }
}
int main(int c, char** v) { return check::run(c, v); }
