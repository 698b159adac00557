// A bias of every row under host execution.
#include "backend/cuda/kernels/rowwise.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

/// Returns what it should cost.
cuda::Cost adds(Random& random, int rows, int hidden) {
  const Matrix x = random_matrix(random, rows, hidden, 3);
  const std::vector<float> bias = random.floats(static_cast<size_t>(hidden));
  const Buffer<float> device_x(x.data, "x"), device_bias(bias, "bias");
  const cuda::AddBiasParams args{device_bias.get(), device_x.get(), rows, hidden};
  cuda::add_bias(nullptr, args);
  std::vector<float> got(x.data.size());
  cuda_host::download(got.data(), device_x.get(), got.size() * sizeof(float));
  for (size_t i = 0; i < got.size(); i++) CHECK(got[i] == x.data[i] + bias[i % bias.size()]);
  return cuda::add_bias_cost(args);
}

}  // namespace

TEST("add_bias: odd shapes") {
  cuda_host::each_order([] {
    Random random(1);
    for (int hidden : {8, 136, 2560}) adds(random, 1 + random.below(12), hidden);
  });
}

TEST("add_bias: bytes as cost.h tells, 16 at a time") {
  Random random(2);
  check_cost(adds(random, 8, 1024));
  const auto& report = cuda_host::last_launch();
  CHECK(report.tensor("x").narrow == 0 && report.tensor("bias").narrow == 0);
  CHECK(claimed("add_bias.cu", "add_bias"));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
