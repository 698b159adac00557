// Every op of training: products against plain sums, gradients against central differences, odd shapes, and the same
// bits whatever the threads.
#include "check.h"
#include "gradients.h"
#include "train/moe.h"
#include "train/ops.h"

using namespace sdar;
using namespace sdar::train;
using gradients::product;
using gradients::random_values;

namespace {

using Floats = std::vector<float>;

double weighed(const Floats& y, const Floats& c) { return product(y.data(), c.data(), y.size()); }

std::vector<int32_t> ids_of(int32_t n, int32_t vocabulary, int32_t factor = 7) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < n; i++) ids.push_back((i * factor + 3) % vocabulary);
  return ids;
}

enum class Mask { token_causal, block_causal, noisy_and_clean };
constexpr Mask kMasks[] = {Mask::token_causal, Mask::block_causal, Mask::noisy_and_clean};

/// Two samples, blocks of 3: the last block is short. The first one has several tiles of queries and keys, with x_t and x_0
/// of its first rows apart.
TrainingRows rows_of(Mask mask, int32_t vocabulary = 11) {
  TrainingRows rows;
  for (const int32_t n : {71, 5}) {
    const auto ids = ids_of(n, vocabulary);
    if (mask == Mask::token_causal) add_token_causal(rows, ids);
    if (mask == Mask::block_causal) add_block_causal(rows, ids, 3);
    if (mask == Mask::noisy_and_clean) add_noisy_and_clean(rows, ids_of(n, vocabulary, 5), ids, 3);
  }
  return rows;
}

/// Whether row `q` sees row `k`, as the masks are defined: by block of positions and by half.
bool sees(Mask mask, const TrainingRows& rows, int32_t q, int32_t k) {
  for (const Span& sample : rows.samples) {
    if (q < sample.begin || q >= sample.end) continue;
    if (k < sample.begin || k >= sample.end) return false;
    const int32_t bq = rows.positions[q] / 3, bk = rows.positions[k] / 3;
    if (mask == Mask::token_causal) return rows.positions[k] <= rows.positions[q];
    if (mask == Mask::block_causal) return bk <= bq;
    const int32_t half = sample.begin + (sample.end - sample.begin) / 2;
    if (q < half) return k < half ? bk == bq : bk < bq;
    return k >= half && bk <= bq;
  }
  return false;
}

}  // namespace

TEST("multiply: plain sums, every order of operands, odd shapes, same bits with 1, 2 and 3 threads") {
  const std::vector<std::vector<int64_t>> shapes = {
      {1, 1, 1}, {13, 33, 7}, {97, 70, 300}, {5, 515, 513}, {200, 31, 256}};
  for (const char* isa : {"", "portable"}) {
    for (const auto& s : shapes) {
      const int64_t m = s[0], n = s[1], k = s[2];
      for (int order = 0; order < 4; order++) {
        const Floats a = random_values(m * k, 1), b = random_values(k * n, 2), start = random_values(m * n, 3);
        const View left = order & 1 ? View{a.data(), 1, m} : View{a.data(), k, 1};
        const View right = order & 2 ? View{b.data(), 1, k} : View{b.data(), n, 1};
        Floats first;
        for (const int threads : {1, 2, 3}) {
          Compute compute(threads, isa);
          Floats written(static_cast<size_t>(m * n), NAN), added = start;
          multiply(compute, m, n, k, left, right, written.data(), n);
          multiply(compute, m, n, k, left, right, added.data(), n, added.data());
          written.insert(written.end(), added.begin(), added.end());
          if (threads == 1) first = written;
          CHECK(written == first);
        }
        double worst = 0;
        for (int64_t i = 0; i < m; i++) {
          for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++)
              sum += static_cast<double>(a[static_cast<size_t>(i * left.row + p * left.column)]) *
                     b[static_cast<size_t>(p * right.row + j * right.column)];
            worst = std::max(worst, std::abs(first[static_cast<size_t>(i * n + j)] - sum));
            const double with = sum + start[static_cast<size_t>(i * n + j)];
            worst = std::max(worst, std::abs(first[static_cast<size_t>(m * n + i * n + j)] - with));
          }
        }
        CHECK_NEAR(worst, 0, 1e-6 * static_cast<double>(k) + 1e-6);
      }
    }
  }
}

TEST("embed: gradients") {
  Compute compute(2);
  const int64_t width = 19;
  const std::vector<int32_t> ids = ids_of(23, 9);
  Floats table = random_values(9 * width, 1), y(23 * width), d_table(table.size());
  const Floats c = random_values(23 * width, 2);
  const auto loss = [&] {
    embed(compute, ids.data(), 23, width, table.data(), y.data());
    return weighed(y, c);
  };
  embed_backward(compute, ids.data(), 23, width, c.data(), d_table.data());
  gradients::check(loss, table, d_table, "table");
}

TEST("rms_norm: gradients") {
  Compute compute(2);
  const int64_t m = 67, width = 37;
  Floats x = random_values(m * width, 1), weight = random_values(width, 2, 1, 0.3f), y(x.size()), factor(m);
  Floats dx(x.size()), d_weight(weight.size());
  const Floats c = random_values(m * width, 3);
  const auto loss = [&] {
    rms_norm(compute, x.data(), m, width, weight.data(), 1e-3f, y.data(), factor.data());
    return weighed(y, c);
  };
  loss();
  rms_norm_backward(compute, x.data(), factor.data(), c.data(), m, width, weight.data(), dx.data(), false,
                    d_weight.data());
  gradients::check(loss, x, dx, "x");
  gradients::check(loss, weight, d_weight, "weight");
  Floats added = random_values(m * width, 4), before = added;
  rms_norm_backward(compute, x.data(), factor.data(), c.data(), m, width, weight.data(), added.data(), true,
                    d_weight.data());
  for (size_t i = 0; i < added.size(); i++) CHECK(added[i] == before[i] + dx[i]);
}

TEST("linear, silu_mul, norm_rope: gradients") {
  Compute compute(2);
  const int64_t m = 29, in = 17, out = 35;
  Floats x = random_values(m * in, 1), weight = random_values(out * in, 2), y(m * out), dx(x.size()),
         d_weight(weight.size());
  const Floats c = random_values(m * out, 3);
  const auto through = [&] {
    linear(compute, x.data(), m, in, out, weight.data(), y.data());
    return weighed(y, c);
  };
  linear_backward(compute, x.data(), c.data(), m, in, out, weight.data(), dx.data(), false, d_weight.data());
  gradients::check(through, x, dx, "linear x");
  gradients::check(through, weight, d_weight, "linear weight");

  Floats gate = random_values(m * out, 4, 0, 2), up = random_values(m * out, 5), d_gate(gate.size()), d_up(up.size());
  const auto gated = [&] {
    silu_mul(compute, gate.data(), up.data(), y.data(), m * out);
    return weighed(y, c);
  };
  silu_mul_backward(compute, gate.data(), up.data(), c.data(), d_gate.data(), d_up.data(), m * out);
  gradients::check(gated, gate, d_gate, "gate");
  gradients::check(gated, up, d_up, "up");

  const int64_t rows = 70, heads = 3, half = 5, wide = heads * 2 * half;
  const Floats angle = random_values(rows * half, 6, 0, 3), target = random_values(rows * wide, 8);
  Floats cos, sin, z = random_values(rows * wide, 7), w = random_values(2 * half, 9, 1, 0.3f), turned(z.size());
  Floats factor(static_cast<size_t>(rows * heads)), d_y = target, d_z(z.size()), d_w(w.size());
  for (const float a : angle) cos.push_back(std::cos(a)), sin.push_back(std::sin(a));
  const Angles angles{cos.data(), sin.data()};
  const auto turn = [&] {
    norm_rope(compute, z.data(), rows, heads, 2 * half, w.data(), 1e-3f, angles, turned.data(), factor.data());
    return weighed(turned, target);
  };
  turn();
  const int64_t row = 67, head = 1, d = 2;  // one element, as defined
  const float* x_low = z.data() + row * wide + head * 2 * half;
  const auto angle_at = static_cast<size_t>(row * half + d);
  CHECK_NEAR(turned[static_cast<size_t>(row * wide + head * 2 * half + d)],
             factor[static_cast<size_t>(row * heads + head)] *
                 (x_low[d] * w[d] * cos[angle_at] - x_low[d + half] * w[d + half] * sin[angle_at]),
             1e-6);
  norm_rope_backward(compute, z.data(), factor.data(), d_y.data(), rows, heads, 2 * half, w.data(), angles, d_z.data(),
                     d_w.data());
  gradients::check(turn, z, d_z, "norm_rope x");
  gradients::check(turn, w, d_w, "norm_rope weight");
}

TEST("attention: plain loops under each mask, and gradients") {
  for (const char* isa : {"", "portable"}) {
    Compute compute(2, isa);
    for (const Mask mask : kMasks) {
      const TrainingRows rows = rows_of(mask);
      const AttentionShape s{6, 2, 10};
      const int64_t m = rows.size(), wide = m * s.heads * s.head_dim, narrow = m * s.kv_heads * s.head_dim;
      Floats q = random_values(wide, 1), k = random_values(narrow, 2), v = random_values(narrow, 3);
      Floats o(q.size()), lse(static_cast<size_t>(m * s.heads)), dq(q.size()), dk(k.size()), dv(v.size());
      const Floats c = random_values(wide, 4);
      const auto loss = [&] {
        attention(compute, rows, s, q.data(), k.data(), v.data(), o.data(), lse.data());
        return weighed(o, c);
      };
      loss();
      double worst = 0;
      for (int32_t row = 0; row < m; row++) {
        for (int32_t head = 0; head < s.heads; head++) {
          const float* query = q.data() + (row * s.heads + head) * s.head_dim;
          const int32_t kv = head / 3;
          std::vector<double> out(10);
          double sum = 0;
          for (int32_t key = 0; key < m; key++) {
            if (!sees(mask, rows, row, key)) continue;
            const int64_t at = (key * s.kv_heads + kv) * s.head_dim;
            const double p = std::exp(product(query, k.data() + at, 10) / std::sqrt(10.0));
            sum += p;
            for (int d = 0; d < 10; d++) out[static_cast<size_t>(d)] += p * v[static_cast<size_t>(at + d)];
          }
          for (int d = 0; d < 10; d++)
            worst = std::max(worst, std::abs(out[static_cast<size_t>(d)] / sum -
                                             o[static_cast<size_t>((row * s.heads + head) * s.head_dim + d)]));
        }
      }
      CHECK_NEAR(worst, 0, 2e-6);
      attention_backward(compute, rows, s, q.data(), k.data(), v.data(), o.data(), lse.data(), c.data(), dq.data(),
                         dk.data(), dv.data());
      gradients::check(loss, q, dq, "q");
      gradients::check(loss, k, dk, "k");
      gradients::check(loss, v, dv, "v");
    }
  }
}

TEST("head_loss: gradients over more than one tile of logits, rows without weight") {
  Compute compute(2);
  const int64_t width = 9, vocabulary = 4099, m = 2 * head_tile(vocabulary) + 5;
  TrainingRows rows;
  add_token_causal(rows, ids_of(static_cast<int32_t>(m), 4099));
  for (int32_t i = 0; i < m; i++) {
    rows.targets[static_cast<size_t>(i)] = i % 4099;
    rows.weights[static_cast<size_t>(i)] = i % 5 == 0 ? 0.0f : 1.0f / static_cast<float>(i % 7 + 1);
  }
  Floats x = random_values(m * width, 1), head = random_values(vocabulary * width, 2), dx(x.size(), NAN),
         d_head(head.size());
  const auto loss = [&] { return head_loss(compute, rows, x.data(), width, head.data(), vocabulary); };
  const double with = head_loss(compute, rows, x.data(), width, head.data(), vocabulary, dx.data(), d_head.data());
  CHECK(with == loss());
  CHECK(product(dx.data(), dx.data(), width) == 0);  // row 0 has no weight
  gradients::check(loss, x, dx, "x");
  gradients::check(loss, head, d_head, "head");
}

TEST("moe: gradients, renormalised and not") {
  Compute compute(2);
  ModelShape shape;
  shape.hidden = 11, shape.experts = 5, shape.experts_per_token = 2, shape.moe_intermediate = 7;
  const int64_t m = 31, matrix = 7 * 11;
  MoeOffsets at;
  at.router = 0;
  for (int64_t e = 0; e < 5; e++)
    at.experts.push_back({55 + 3 * e * matrix, 55 + (3 * e + 1) * matrix, 55 + (3 * e + 2) * matrix});
  for (const bool renormalise : {false, true}) {
    Floats weights = random_values(55 + 15 * matrix, 1, 0, 0.5f), n = random_values(m * 11, 2), dn(n.size()),
           d(weights.size());
    const Floats c = random_values(m * 11, 3);
    MoeState state;
    const auto loss = [&] {
      const Floats onto(n.size());
      Floats x(n.size());
      moe(compute, shape, renormalise, at, weights.data(), n.data(), m, state, onto.data(), x.data());
      return weighed(x, c);
    };
    loss();
    moe_backward(compute, shape, renormalise, at, weights.data(), n.data(), m, state, c.data(), dn.data(), d.data());
    gradients::check(loss, n, dn, "n", 5e-4);  // small: no row may change its experts
    gradients::check(loss, weights.data(), 55, d.data(), "router", 5e-4);
    gradients::check(loss, weights.data() + 55, static_cast<size_t>(15 * matrix), d.data() + 55, "experts");
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
