// The embedding kernel against the values of the packed table: nothing may differ.
#include <set>

#include "backend/cuda/kernels/rowwise.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

/// Returns what it should cost.
cuda::Cost embeds(WeightFormat format, int vocabulary, int hidden, const std::vector<int32_t>& ids) {
  const int rows = static_cast<int>(ids.size());
  Random random(static_cast<uint64_t>(hidden + rows));
  const DeviceWeight table(WeightKind::table, format, {random_matrix(random, vocabulary, hidden)});
  const Buffer<int32_t> device_ids(ids, "ids");
  const Buffer<float> x(static_cast<size_t>(rows) * hidden, "x");
  const cuda::EmbedParams args{table.view, device_ids.get(), x.get(), rows};
  cuda::embed(nullptr, args);
  const std::vector<float> got = x.values();
  int wrong = 0;
  for (int row = 0; row < rows; row++) {
    for (int i = 0; i < hidden; i++)
      wrong += got[static_cast<size_t>(row) * hidden + i] != table.values.row(ids[row])[i];
  }
  CHECK(wrong == 0);
  return cuda::embed_cost(args, static_cast<int32_t>(std::set(ids.begin(), ids.end()).size()));
}

void embeds_some(WeightFormat format, int vocabulary, int hidden, int rows) {
  Random random(static_cast<uint64_t>(vocabulary + rows));
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  for (auto& id : ids) id = random.below(vocabulary);
  ids.front() = vocabulary - 1;
  embeds(format, vocabulary, hidden, ids);
}

}  // namespace

TEST("embedding: any number of rows, sizes that do not fill a block") {
  cuda_host::each_order([] {
    for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {  // int4 is held as int8
      embeds_some(format, 64, 128, 4);
      embeds_some(format, 7, 8, 1);
      embeds_some(format, 100, 264, 33);
      embeds_some(format, 33, 1024, 5);
    }
  });
}

TEST("embedding: bytes as cost.h tells, the table's 16 at a time") {
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8}) {
    for (int hidden : {1024, 264}) {
      const std::vector<int32_t> ids{1, 49, 18, 1, 20, 37, 40, 6, 18};  // of no tile rows g and g + 8
      check_cost(embeds(format, 50, hidden, ids));
      const int64_t scales = format == WeightFormat::int8 ? int64_t{9} * ((hidden + 31) / 32 * 4) * 4 : 0;
      CHECK(cuda_host::last_launch().tensor("weights").narrow == scales);
    }
    CHECK(claimed("embed.cu", std::string("embed<") + name_of(format) + ">"));
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
