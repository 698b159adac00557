// Training with bf16 operands: products and attention against plain loops over rounded operands, on odd shapes and every
// instruction set; gradients of networks beside those of f32.
#include "backend/cpu/cpu.h"
#include "check.h"
#include "gradients.h"
#include "train/ops.h"
#include "train/recipe.h"
#include "train_networks.h"
#include "util/half.h"

using namespace sdar;
using namespace sdar::train;
using gradients::product;
using gradients::random_values;

namespace {

using Floats = std::vector<float>;
using Halves = std::vector<uint16_t>;

Halves halves_of(const Floats& x) {
  Halves out;
  for (const float value : x) out.push_back(f32_to_bf16(value));
  return out;
}
Floats rounded(Floats x) {
  for (float& value : x) value = round_to_bf16(value);
  return x;
}
/// |a - b| / |b|
double distance(const Floats& a, const Floats& b) {
  double difference = 0;
  for (size_t i = 0; i < a.size(); i++) difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(difference / product(b.data(), b.data(), b.size()));
}

struct Matrices {
  int64_t m, n, k;
  int order;  ///< bit 0: a is transposed, bit 1: b is
  Floats a = random_values(m * k, 1), b = random_values(k * n, 2), start = random_values(m * n, 3);

  View left(const Operand& data) const { return order & 1 ? View{data, 1, m} : View{data, k, 1}; }
  View right(const Operand& data) const { return order & 2 ? View{data, 1, k} : View{data, n, 1}; }
  /// Written, then added to `start`.
  Floats results(Compute& compute, const Operand& of_a, const Operand& of_b) const {
    Floats written(static_cast<size_t>(m * n), NAN), added = start;
    multiply(compute, m, n, k, left(of_a), right(of_b), written.data(), n);
    multiply(compute, m, n, k, left(of_a), right(of_b), added.data(), n, added.data());
    written.insert(written.end(), added.begin(), added.end());
    return written;
  }
  Floats expected() const {
    const Floats x = rounded(a), y = rounded(b);
    const View l = left(x.data()), r = right(y.data());
    Floats sums;
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++) {
        double sum = 0;
        for (int64_t p = 0; p < k; p++)
          sum += static_cast<double>(x[static_cast<size_t>(i * l.row + p * l.column)]) *
                 y[static_cast<size_t>(p * r.row + j * r.column)];
        sums.push_back(static_cast<float>(sum));
      }
    }
    for (size_t i = 0; i < start.size(); i++) sums.push_back(sums[i] + start[i]);
    return sums;
  }
};

TrainingRows noisy_rows() {
  std::vector<int32_t> ids = ids_of(71, 7);
  TrainingRows rows;
  add_noisy_and_clean(rows, ids, ids, 3);
  add_token_causal(rows, ids_of(37, 5));
  return rows;
}

}  // namespace

TEST("multiply: plain sums of rounded operands, from f32 and from bf16, same bits with 1, 2 and 3 threads") {
  const std::vector<std::vector<int64_t>> shapes = {
      {1, 1, 1}, {13, 33, 7}, {97, 70, 301}, {5, 515, 513}, {211, 31, 255}};
  for (const std::string& isa : cpu::instruction_sets()) {
    for (const auto& s : shapes) {
      for (int order = 0; order < 4; order++) {
        const Matrices matrices{s[0], s[1], s[2], order};
        const Halves a = halves_of(matrices.a), b = halves_of(matrices.b);
        Floats first;
        for (const int threads : {1, 2, 3}) {
          Compute compute(threads, isa, Format::bf16);
          const Floats results = matrices.results(compute, matrices.a.data(), matrices.b.data());
          if (first.empty()) first = results;
          CHECK(results == first);
          CHECK(matrices.results(compute, {a.data(), Format::bf16}, {b.data(), Format::bf16}) == first);
          CHECK(matrices.results(compute, {a.data(), Format::bf16}, matrices.b.data()) == first);
        }
        const Floats expected = matrices.expected();
        double worst = 0;
        for (size_t i = 0; i < first.size(); i++) {
          const double difference = std::abs(first[i] - expected[i]);
          worst = std::max(worst, difference == difference ? difference : INFINITY);
        }
        CHECK_NEAR(worst, 0, 1e-6 * static_cast<double>(s[2]) + 1e-6);
      }
    }
  }
}

TEST("rounding: to nearest even, infinities and NaN as they are") {
  for (const std::string& isa : cpu::instruction_sets()) {
    Compute compute(1, isa, Format::bf16);
    Floats x = random_values(77, 9, 0, 1e3f);
    // Ties either way, what rounds to infinity, zeros.
    for (const uint32_t bits : {0x3f808000u, 0x3f818000u, 0x3f808001u, 0xbf817fffu, 0x7f7fffffu, 0x80000000u})
      x.push_back(std::bit_cast<float>(bits));
    x.push_back(INFINITY), x.push_back(-INFINITY), x.push_back(NAN);
    Halves out(x.size());
    compute.kernels().round(x.data(), static_cast<int64_t>(x.size()), {out.data(), Format::bf16});
    for (size_t i = 0; i + 1 < x.size(); i++) CHECK(out[i] == f32_to_bf16(x[i]));
    CHECK(std::isnan(bf16_to_f32(out.back())));
  }
}

TEST("attention: that of rounded operands in f32, forward and backward") {
  const TrainingRows rows = noisy_rows();
  const AttentionShape s{6, 2, 10};
  const int64_t m = rows.size(), wide = m * s.heads * s.head_dim, narrow = m * s.kv_heads * s.head_dim;
  const Floats q = random_values(wide, 1), k = random_values(narrow, 2), v = random_values(narrow, 3);
  const Floats d_o = random_values(wide, 4);
  struct Results {
    Floats o, lse, dq, dk, dv;
  };
  const auto attend = [&](Compute& compute, const Operand& of_q, const Operand& of_k, const Operand& of_v) {
    Results r{Floats(q.size()), Floats(static_cast<size_t>(m * s.heads)), Floats(q.size(), NAN), Floats(k.size(), NAN),
              Floats(v.size(), NAN)};
    attention(compute, rows, s, of_q, of_k, of_v, r.o.data(), r.lse.data());
    attention_backward(compute, rows, s, of_q, of_k, of_v, r.o.data(), r.lse.data(), d_o.data(), r.dq.data(),
                       r.dk.data(), r.dv.data());
    return r;
  };
  const Floats q_rounded = rounded(q), k_rounded = rounded(k), v_rounded = rounded(v);
  const Halves q_half = halves_of(q), k_half = halves_of(k), v_half = halves_of(v);
  for (const std::string& isa : cpu::instruction_sets()) {
    Compute exact(2, isa), compute(2, isa, Format::bf16);
    const Results expected = attend(exact, q_rounded.data(), k_rounded.data(), v_rounded.data());
    const Results own =
        attend(compute, {q_half.data(), Format::bf16}, {k_half.data(), Format::bf16}, {v_half.data(), Format::bf16});
    // Scores have the same operands; probabilities and their gradients are rounded once more, by 2^-9 at most.
    CHECK(distance(own.lse, expected.lse) < 1e-6);
    CHECK(distance(own.o, expected.o) < 3e-3);
    CHECK(distance(own.dq, expected.dq) < 6e-3);
    CHECK(distance(own.dk, expected.dk) < 6e-3);
    CHECK(distance(own.dv, expected.dv) < 3e-3);
    CHECK(distance(own.o, expected.o) > 1e-5);
  }
}

TEST("networks: gradients near those of f32, the same bits whatever the threads and what is kept") {
  TrainingRows rows;
  for (const int32_t n : {23, 14}) add_block_causal(rows, ids_of(n, 5), 4);
  for (size_t i = 0; i < rows.ids.size(); i++)
    rows.targets[i] = static_cast<int32_t>(i % 37), rows.weights[i] = i % 3 ? 0.03f : 0.0f;
  for (const int32_t experts : {0, 5}) {
    const ModelConfig config = config_of(experts == 0, experts, 5);
    Compute exact(2);
    Network reference(config, exact);
    const std::vector<float> weights = weights_of(reference.layout());
    Floats expected(weights.size()), first;
    const double loss = reference.loss_and_gradients(weights.data(), rows, expected.data());
    for (const int threads : {1, 2, 3}) {
      for (const Activations activations : {Activations::recompute, Activations::keep}) {
        Compute compute(threads, "", Format::bf16);
        Network network(config, compute, activations);
        Floats g(weights.size());
        const double own = network.loss_and_gradients(weights.data(), rows, g.data());
        CHECK(own == network.loss(weights.data(), rows));
        CHECK(own != loss);
        CHECK_NEAR(own, loss, 5e-3 * loss);
        if (first.empty()) first = g;
        CHECK(g == first);
      }
    }
    CHECK_NEAR(distance(first, expected), 0, 0.05);
    for (const Parameter& p : reference.layout().parameters()) {
      const auto begin = static_cast<size_t>(p.offset), end = begin + static_cast<size_t>(p.elements());
      const Floats own(first.begin() + p.offset, first.begin() + static_cast<int64_t>(end));
      const double far =
          distance(own, Floats(expected.begin() + p.offset, expected.begin() + static_cast<int64_t>(end)));
      // Gradients of the norms of q and k are small differences of large ones.
      if (!(far < 0.12)) check::fail(__FILE__, __LINE__, p.name + ": " + std::to_string(far) + " from f32");
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
