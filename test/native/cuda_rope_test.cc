// q/k-norm, RoPE and page write under host execution.
#include <set>

#include "cuda_steps.h"

using namespace sdar;
using namespace oracle;

namespace {

/// A head, or the vector `bias` of as many, added to.
Matrix shifted(Matrix head, const std::vector<float>& bias, int index) {
  if (bias.empty()) return head;
  for (size_t i = 0; i < head.data.size(); i++) head.data[i] += bias[static_cast<size_t>(index) * head.data.size() + i];
  return head;
}

std::vector<float> turned(const Matrix& head, const std::vector<float>& norm, int position, double theta) {
  const int half = static_cast<int>(head.cols) / 2;
  const std::vector<float> x = rms_norm(head, norm, 1e-6).data;
  std::vector<float> y(x.size());
  for (int i = 0; i < half; i++) {
    const double angle = position * std::pow(theta, -1.0 * i / half);
    y[i] = static_cast<float>(x[i] * std::cos(angle) - x[i + half] * std::sin(angle));
    y[i + half] = static_cast<float>(x[i + half] * std::cos(angle) + x[i] * std::sin(angle));
  }
  return y;
}

/// Returns what it should cost.
cuda::Cost turns(Random& random, int head_dim, int heads, int kv_heads, int block, const std::vector<int>& lengths,
                 const std::vector<Run>& runs, int padding = 3, bool biased = false) {
  ModelShape shape;
  shape.layers = 2, shape.kv_heads = kv_heads, shape.head_dim = head_dim;
  const PagedSequences pages(random, shape, block, lengths);
  const DeviceStep step(pages, runs, padding);
  const int rows = step.rows(), layer = 1;
  const Matrix qkv = random_matrix(random, rows, (heads + 2 * kv_heads) * head_dim, 4);
  const std::vector<float> q_norm = random.floats(head_dim, 0.5, 2), k_norm = random.floats(head_dim, 0.5, 2);
  const auto bias_of = [&](int all) {
    return biased ? random.floats(static_cast<size_t>(all * head_dim)) : std::vector<float>();
  };
  const std::vector<float> q_bias = bias_of(heads), k_bias = bias_of(kv_heads), v_bias = bias_of(kv_heads);
  const Buffer<float> device_q_bias(q_bias, "q bias"), device_k_bias(k_bias, "k bias"), device_v_bias(v_bias, "v bias");
  const Buffer<float> device_qkv(qkv.data, "qkv"), device_q_norm(q_norm, "q norm"), device_k_norm(k_norm, "k norm"),
      device_rotations(rotations(300, head_dim, 1e4), "rotations");
  const Buffer<uint16_t> q(static_cast<size_t>(rows) * heads * head_dim, "q");
  const cuda::RopeParams args{.tables = step.tables(),
                              .pages = pages.view(),
                              .qkv = device_qkv.get(),
                              .q_norm = device_q_norm.get(),
                              .k_norm = device_k_norm.get(),
                              .rotations = device_rotations.get(),
                              .q = q.get(),
                              .rows = rows,
                              .layer = layer,
                              .heads = heads,
                              .eps = 1e-6f,
                              .q_bias = biased ? device_q_bias.get() : nullptr,
                              .k_bias = biased ? device_k_bias.get() : nullptr,
                              .v_bias = biased ? device_v_bias.get() : nullptr};
  cuda::rope(nullptr, args);
  std::set<int> positions;
  int row = 0;
  for (const Run& run : runs) {
    for (int position = run.position; position < run.position + run.rows; position++, row++) {
      positions.insert(position);
      const auto head = [&](int index) {
        const float* begin = qkv.row(row) + index * head_dim;
        return Matrix{1, head_dim, std::vector<float>(begin, begin + head_dim)};
      };
      for (int h = 0; h < heads; h++) {
        std::vector<uint16_t> bits(static_cast<size_t>(head_dim));
        cuda_host::download(bits.data(), q.get() + (row * heads + h) * head_dim, bits.size() * 2);
        std::vector<float> got;
        for (uint16_t b : bits) got.push_back(bf16_to_f32(b));
        CHECK(bf16_distance(got, turned(shifted(head(h), q_bias, h), q_norm, position, 1e4)) <= 1);
      }
      for (int h = 0; h < kv_heads; h++) {
        CHECK(bf16_distance(pages.get(run.sequence, layer, false, h, position),
                            turned(shifted(head(heads + h), k_bias, h), k_norm, position, 1e4)) <= 1);
        CHECK(pages.get(run.sequence, layer, true, h, position) ==
              rounded(shifted(head(heads + kv_heads + h), v_bias, h), WeightFormat::bf16).data);
        CHECK(std::isnan(pages.get(run.sequence, 0, true, h, position)[0]));  // the other layer
      }
    }
  }
  return cuda::rope_cost(args, padding, static_cast<int32_t>(positions.size()));
}

}  // namespace

TEST("rope: heads of 64 and 128, blocks that fill a page and blocks that do not, padding rows") {
  cuda_host::each_order([] {
    Random random(1);
    turns(random, 64, 4, 2, 8, {80, 40}, {{0, 56, 16}, {1, 8, 8}});
    turns(random, 128, 3, 1, 6, {130, 70}, {{1, 54, 12}, {0, 120, 6}});
    turns(random, 128, 4, 4, 1, {140}, {{0, 63, 2}}, 0);
  });
}

TEST("rope: biases of q, k and v") {
  cuda_host::each_order([] {
    Random random(3);
    turns(random, 64, 4, 2, 8, {80, 40}, {{0, 56, 16}, {1, 8, 8}}, 3, true);
    turns(random, 128, 3, 1, 6, {130, 70}, {{1, 54, 12}, {0, 120, 6}}, 1, true);
  });
}

TEST("rope: bytes as cost.h tells") {
  Random random(2);
  check_cost(turns(random, 128, 4, 2, 4, {64}, {{0, 0, 64}}, 3, true));
  check_cost(turns(random, 128, 4, 2, 4, {64}, {{0, 0, 64}}));
  CHECK(claimed("rope.cu", "rope<128>"));
  check_cost(turns(random, 64, 7, 1, 6, {130, 70}, {{1, 54, 12}, {0, 60, 18}}));
  CHECK(claimed("rope.cu", "rope<64>"));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
