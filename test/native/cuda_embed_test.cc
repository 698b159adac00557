// The embedding kernel against a plain loop: every value is a bf16 widened, so nothing may differ.
#include <random>

#include "backend/cuda/embed.h"
#include "check.h"
#include "cuda_host/executor.h"
#include "cuda_host/memory.h"
#include "cuda_host/report.h"
#include "util/half.h"

using namespace sdar;
using cuda_host::Buffer;

namespace {

void embeds(int vocabulary, int hidden, int rows) {
  std::mt19937 random(static_cast<unsigned>(hidden + rows));
  std::vector<uint16_t> table(static_cast<size_t>(vocabulary) * hidden);
  for (auto& h : table) h = f32_to_bf16(std::normal_distribution<float>()(random));
  std::vector<int32_t> ids(rows);
  for (auto& id : ids) id = static_cast<int32_t>(random() % vocabulary);
  ids.front() = vocabulary - 1;

  const Buffer<uint16_t> device_table(table, "table");
  const Buffer<int32_t> device_ids(ids, "ids");
  const Buffer<float> x(static_cast<size_t>(rows) * hidden, "x");
  cuda::embed(nullptr, {device_table.get(), device_ids.get(), x.get(), rows, hidden});

  const std::vector<float> got = x.values();
  int wrong = 0;
  for (int row = 0; row < rows; row++)
    for (int i = 0; i < hidden; i++)
      wrong +=
          got[static_cast<size_t>(row) * hidden + i] != bf16_to_f32(table[static_cast<size_t>(ids[row]) * hidden + i]);
  CHECK(wrong == 0);
}

}  // namespace

TEST("embedding: any number of rows, sizes that do not fill a block") {
  cuda_host::each_order([] {
    embeds(64, 128, 4);
    embeds(7, 8, 1);
    embeds(100, 264, 33);
    embeds(33, 1024, 5);
  });
}

TEST("embedding: the bytes that its comment tells, 16 at a time") {
  const int hidden = 1024, rows = 16;
  embeds(50, hidden, rows);
  const auto& report = cuda_host::last_launch();
  CHECK(report.tensor("table").loaded == rows * hidden * 2);
  CHECK(report.tensor("table").narrowest_load == 16);
  CHECK(report.tensor("x").stored == rows * hidden * 4);
  CHECK(report.tensor("ids").loaded == rows * (hidden / 8) * 4);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
