#include <cmath>
#include <cstring>

#include "train/ops.h"

namespace sdar::train {

int64_t head_tile(int64_t vocabulary) { return std::clamp<int64_t>((int64_t{4} << 20) / vocabulary, 16, 1024); }

double head_loss(Compute& compute, const TrainingRows& rows, const Operand& x, int64_t width, const float* head,
                 int64_t vocabulary, float* dx, const HeadGradients& gradients) {
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < rows.size(); i++) {
    if (rows.weights[static_cast<size_t>(i)] != 0)
      wanted.push_back(i);
    else if (dx)
      std::fill_n(dx + i * width, width, 0.0f);
  }
  const int64_t most = std::min<int64_t>(head_tile(vocabulary), static_cast<int64_t>(wanted.size()));
  const auto row_bytes = static_cast<size_t>(width * (x.format == Format::f32 ? 4 : 2));
  Buffer logits(static_cast<size_t>(most * vocabulary)), gathered(static_cast<size_t>(most * width));
  Buffer d_in(dx ? gathered.size() : 0);
  const OperandOut in(gathered.data(), x.format);
  std::vector<double> losses(static_cast<size_t>(most));
  double loss = 0;
  for (size_t first = 0; first < wanted.size(); first += static_cast<size_t>(most)) {
    const int64_t m = std::min<int64_t>(most, static_cast<int64_t>(wanted.size() - first));
    const int64_t* row = wanted.data() + first;
    for (int64_t i = 0; i < m; i++) std::memcpy(in.at(i * width).data, x.at(row[i] * width).data, row_bytes);
    linear(compute, in, m, width, vocabulary, head, logits.data());
    compute.split(m, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        float* z = logits.data() + i * vocabulary;
        const int32_t target = rows.targets[static_cast<size_t>(row[i])];
        const float weight = rows.weights[static_cast<size_t>(row[i])], at_target = z[target];
        float maximum = 0;
        const float sum = compute.kernels().exp_row(z, vocabulary, &maximum);
        losses[static_cast<size_t>(i)] = weight * (std::log(static_cast<double>(sum)) + maximum - at_target);
        if (!dx) continue;
        const float factor = weight / sum;
        compute.kernels().scale(z, vocabulary, factor);
        z[target] -= weight;
      }
    });
    for (int64_t i = 0; i < m; i++) loss += losses[static_cast<size_t>(i)];
    if (!dx) continue;
    linear_backward(compute, in, logits.data(), m, width, vocabulary, head, d_in.data(), false, gradients.all);
    for (size_t r = 0; r < gradients.ids.size(); r++) {
      float* row = gradients.rows + static_cast<int64_t>(r) * width;
      multiply(compute, 1, width, m, {logits.data() + gradients.ids[r], 1, vocabulary}, {in, width, 1}, row, width,
               row);
    }
    for (int64_t i = 0; i < m; i++)
      std::memcpy(dx + row[i] * width, d_in.data() + i * width, static_cast<size_t>(width) * sizeof *dx);
  }
  return loss;
}

}  // namespace sdar::train
