// That cost.h is held to the counters from both sides, and that it gives the figures in the kernels' comments.
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

constexpr int kTokens = 16, kRows = 128, kCols = 256;

cuda::GemmParams multiplied() {
  Random random(1);
  const DeviceWeight weight(WeightKind::linear, WeightFormat::bf16, {random_matrix(random, kRows, kCols)});
  const auto activations = put_tiles(random_matrix(random, kTokens, kCols), "activations");
  const Buffer<float> out(kTokens * kRows, "out");
  const cuda::GemmParams args{
      .weight = weight.view, .activations = activations->get(), .tokens = kTokens, .out = out.get()};
  cuda::gemm(nullptr, args);
  return args;
}

cuda::DeviceMatrix matrix(WeightKind kind, WeightFormat format, int rows, int cols) {
  return {nullptr, kind, format, rows, cols};
}

}  // namespace

TEST("cost: a formula that is a tenth too high or too low is found, in each number") {
  const cuda::Cost right = cuda::gemm_cost(multiplied());
  CHECK(difference(right).empty());
  for (int64_t cuda::Cost::*number :
       {&cuda::Cost::loaded, &cuda::Cost::loaded_once, &cuda::Cost::stored, &cuda::Cost::mma}) {
    for (double factor : {0.9, 1.1, 0.0}) {
      cuda::Cost wrong = right;
      wrong.*number = static_cast<int64_t>(static_cast<double>(right.*number) * factor);
      CHECK(!difference(wrong).empty());
    }
  }
}

TEST("cost: the figures in the comments") {
  // head.cu: 1.7B's vocabulary, 64 requests
  const cuda::Cost head = cuda::lm_head_cost(matrix(WeightKind::table, WeightFormat::bf16, 151936, 2048), 64, 64, 0);
  CHECK_NEAR(static_cast<double>(head.loaded_once), 622e6, 2e6);
  CHECK_NEAR(static_cast<double>(head.stored) / 64, 47.5e3, 0.1e3);
  // gemm_grouped.cu: gate_up of 30B-A3B, 4 rows of each expert
  const std::vector<int32_t> counts(128, 4);
  const cuda::GroupedGemmParams grouped{.shape = matrix(WeightKind::gate_up, WeightFormat::bf16, 1536, 2048),
                                        .expert_count = 128,
                                        .tokens = 64,
                                        .top_k = 8,
                                        .epilogue = cuda::Epilogue::silu_mul};
  CHECK_NEAR(static_cast<double>(cuda::gemm_grouped_cost(grouped, counts).loaded_once), 805e6, 3e6);
  // rope.cu: 64 rows of 4B
  const cuda::RopeParams rope{.pages = {nullptr, 36, 8, 128}, .rows = 64, .heads = 32};
  const cuda::Cost turned = cuda::rope_cost(rope, 0, 64);
  CHECK_NEAR(static_cast<double>(turned.loaded_once + turned.stored), 2.4e6, 0.1e6);
  // moe.cu: route of 64 tokens of 30B-A3B
  const cuda::RouteParams route{.tokens = 64, .hidden = 2048, .expert_count = 128, .top_k = 8};
  CHECK_NEAR(static_cast<double>(cuda::route_cost(route).loaded), 68e6, 1e6);
  // sample.cu, head_merge.cu: 151,936 ids
  CHECK_NEAR(static_cast<double>(cuda::lm_head_merge_cost(151936, 1, 1).loaded_once), 48e3, 1e3);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
