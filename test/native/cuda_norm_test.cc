// RMSNorm into activation tiles under host execution.
#include <set>

#include "backend/cuda/kernels/rowwise.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

/// Returns what it should cost.
cuda::Cost normalises(Random& random, int rows, int hidden, bool chosen) {
  const Matrix x = random_matrix(random, rows, hidden, 3);
  const std::vector<float> norm = random.floats(static_cast<size_t>(hidden), 0.5, 2);
  std::vector<int32_t> which;
  for (int i = 0; i < rows + 2; i++) which.push_back(chosen ? random.below(rows) : i);
  if (!chosen) which.resize(static_cast<size_t>(rows));
  Matrix picked{static_cast<int64_t>(which.size()), hidden, {}};
  for (int32_t row : which) picked.data.insert(picked.data.end(), x.row(row), x.row(row) + hidden);

  const Buffer<float> device_x(x.data, "x"), device_norm(norm, "norm");
  const Buffer<int32_t> device_rows(which, "rows");
  const int tokens = static_cast<int>(which.size());
  const auto tiles = empty_tiles(tokens, hidden, "tiles");
  const cuda::NormParams args{.x = device_x.get(),
                              .norm = device_norm.get(),
                              .rows = chosen ? device_rows.get() : nullptr,
                              .tiles = tiles->get(),
                              .tokens = tokens,
                              .hidden = hidden,
                              .eps = 1e-6f};
  cuda::rms_norm(nullptr, args);
  const Matrix want = rounded(rms_norm(picked, norm, 1e-6), WeightFormat::bf16);
  CHECK(bf16_distance(get_tiles(*tiles, tokens, hidden).data, want.data, 1e-6) <= 1);
  return cuda::rms_norm_cost(args, static_cast<int32_t>(std::set(which.begin(), which.end()).size()));
}

}  // namespace

TEST("rms_norm: odd shapes, all rows and chosen ones") {
  cuda_host::each_order([] {
    Random random(1);
    for (int hidden : {8, 136, 256, 2560, 4104}) {
      normalises(random, 1 + random.below(12), hidden, false);
      normalises(random, 1 + random.below(5), hidden, true);
    }
  });
}

TEST("rms_norm: bytes as cost.h tells, 16 at a time") {
  Random random(2);
  for (int hidden : {1024, 2056}) {
    for (bool chosen : {false, true}) {
      check_cost(normalises(random, 8, hidden, chosen));
      const auto& report = cuda_host::last_launch();
      CHECK(report.tensor("x").narrow == 0 && report.tensor("norm").narrow == 0);
      CHECK(report.bank_conflicts() == 0);
      CHECK(claimed("norm.cu", "rms_norm"));
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
