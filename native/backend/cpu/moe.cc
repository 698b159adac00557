#include "backend/cpu/moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sdar::cpu {

void Moe::route(const MoeArgs& args, float eps) {
  const int64_t m = args.m, top_k = args.top_k, experts = static_cast<int64_t>(args.gate_up.size());
  const PackedWeight& router = packed(*args.router);
  const RowSource source{args.x, router.spec.cols, packed(*args.norm).vector(), eps};
  const Activations rows = matmul_.prepare(source, router.format, m, router_rows_);
  float* logits = logits_.reserve(static_cast<size_t>(m * experts));
  matmul_.multiply(router, rows, m, Epilogue::store, logits, experts);

  expert_.resize(m * top_k), probability_.resize(m * top_k), slot_of_.resize(m * top_k), row_of_.resize(m * top_k);
  first_.assign(experts + 1, 0);
  order_.resize(experts);
  for (int64_t row = 0; row < m; row++) {
    float* p = logits + row * experts;
    const float max = *std::max_element(p, p + experts);
    float total = 0, chosen = 0;
    for (int64_t e = 0; e < experts; e++) total += p[e] = std::exp(p[e] - max);
    std::iota(order_.begin(), order_.end(), 0);
    if (std::isfinite(total)) {  // a NaN cannot be ordered; it shows in the result whichever experts are taken
      std::partial_sort(order_.begin(), order_.begin() + top_k, order_.end(),
                        [p](int32_t a, int32_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    }
    int32_t* mine = &expert_[row * top_k];
    std::copy_n(order_.begin(), top_k, mine);
    std::sort(mine, mine + top_k);
    for (int64_t i = 0; i < top_k; i++) chosen += p[mine[i]], first_[mine[i] + 1]++;
    for (int64_t i = 0; i < top_k; i++) {
      probability_[row * top_k + i] = p[mine[i]] / (args.renormalise ? chosen : total);
    }
  }
  std::partial_sum(first_.begin(), first_.end(), first_.begin());
  used_.clear();
  for (int64_t e = 0; e < experts; e++) {
    if (first_[e + 1] > first_[e]) used_.push_back(static_cast<int32_t>(e));
  }
  std::vector<int32_t>& next = order_;  // no longer needed
  std::copy_n(first_.begin(), experts, next.begin());
  for (int64_t i = 0; i < m * top_k; i++) {
    slot_of_[i] = next[expert_[i]]++;
    row_of_[slot_of_[i]] = static_cast<int32_t>(i / top_k);
  }
}

void Moe::run(const MoeArgs& args, float eps) {
  if (args.m == 0) return;
  route(args, eps);
  const int64_t top_k = args.top_k, slots = args.m * top_k;
  experts_read_ += static_cast<int64_t>(used_.size());
  const PackedWeight &up = packed(*args.gate_up[0]), &down = packed(*args.down[0]);
  const int64_t hidden = up.spec.cols, inner = down.spec.cols;
  float* mlp = mlp_.reserve(static_cast<size_t>(slots * inner));
  float* out = down_.reserve(static_cast<size_t>(slots * hidden));

  // All panels of all used experts are one list of tasks.
  const auto multiply = [&](std::span<const Weight* const> weights, const Activations& a, Epilogue epilogue,
                            float* to) {
    const PackedWeight& shape = packed(*weights[0]);
    const int64_t panels = shape.panels(), stride = shape.outputs();
    const int64_t tasks = panels * static_cast<int64_t>(used_.size());
    matmul_.parallel_for(tasks, slots * shape.spec.rows * shape.spec.cols, [&](int64_t task, int) {
      const int64_t e = used_[task / panels], panel = task % panels, first = first_[e];
      matmul_.multiply_panel(packed(*weights[e]), panel, Matmul::rows_from(a, first), first_[e + 1] - first, epilogue,
                             to + first * stride + panel * shape.panel_columns(), stride);
    });
  };
  const RowSource in{args.x, hidden, packed(*args.norm).vector(), eps, row_of_.data()};
  multiply(args.gate_up, matmul_.prepare(in, up.format, slots, in_rows_), Epilogue::silu_mul, mlp);
  multiply(args.down, matmul_.prepare({mlp, inner}, down.format, slots, mlp_rows_), Epilogue::store, out);

  matmul_.parallel_for(args.m, slots * hidden, [&](int64_t row, int) {
    float* x = args.x + row * hidden;
    for (int64_t i = 0; i < hidden; i++) {
      float sum = 0;
      for (int64_t j = row * top_k; j < (row + 1) * top_k; j++) sum += probability_[j] * out[slot_of_[j] * hidden + i];
      x[i] += sum;
    }
  });
}

}  // namespace sdar::cpu
