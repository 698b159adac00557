// The embedding kernel against the values of the packed table: nothing may differ.
#include "backend/cuda/embed.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

void embeds(WeightFormat format, int vocabulary, int hidden, int rows) {
  Random random(static_cast<uint64_t>(hidden + rows));
  const DeviceWeight table(WeightKind::table, format, {random_matrix(random, vocabulary, hidden)});
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  for (auto& id : ids) id = random.below(vocabulary);
  ids.front() = vocabulary - 1;

  const Buffer<int32_t> device_ids(ids, "ids");
  const Buffer<float> x(static_cast<size_t>(rows) * hidden, "x");
  cuda::embed(nullptr, {table.view, device_ids.get(), x.get(), rows});
  const std::vector<float> got = x.values();
  int wrong = 0;
  for (int row = 0; row < rows; row++) {
    for (int i = 0; i < hidden; i++)
      wrong += got[static_cast<size_t>(row) * hidden + i] != table.values.row(ids[row])[i];
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST("embedding: any number of rows, sizes that do not fill a block") {
  cuda_host::each_order([] {
    for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {  // int4 is held as int8
      embeds(format, 64, 128, 4);
      embeds(format, 7, 8, 1);
      embeds(format, 100, 264, 33);
      embeds(format, 33, 1024, 5);
    }
  });
}

TEST("embedding: the bytes that its comment tells, 16 at a time in bf16") {
  const int hidden = 1024, rows = 16;
  embeds(WeightFormat::bf16, 50, hidden, rows);
  const auto& report = cuda_host::last_launch();
  CHECK(report.tensor("weights").loaded == rows * hidden * 2);
  CHECK(report.tensor("weights").narrowest_load == 16);
  CHECK(report.tensor("x").stored == rows * hidden * 4);
  CHECK(report.tensor("ids").loaded == rows * (hidden / 8) * 4);
  CHECK(claimed("embed.cu", "embed<bf16>"));
  embeds(WeightFormat::int8, 50, hidden, rows);
  CHECK(claimed("embed.cu", "embed<int8>"));
  CHECK(report.tensor("weights").loaded == rows * hidden + rows * (hidden / 8) * 4);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
