// Samples in a file, and the plan of a run's batches: nothing is left out, nothing held out is trained on.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "check.h"
#include "train/dataset.h"
#include "train/initial.h"
#include "train_networks.h"

using namespace sdar;
using namespace sdar::train;
namespace fs = std::filesystem;

namespace {

struct File {
  std::string path = (fs::temp_directory_path() / ("sdar-samples-" + std::to_string(getpid()))).string();
  File(const std::vector<int32_t>& words, int64_t count) {
    std::ofstream out(path, std::ios::binary);
    out.write("SDARSMP1", 8);
    out.write(reinterpret_cast<const char*>(words.data()), static_cast<std::streamsize>(4 * words.size()));
    out.write(reinterpret_cast<const char*>(&count), 8);
  }
  ~File() { fs::remove(path); }
};

std::vector<int32_t> lengths_of(int n) {
  std::vector<int32_t> lengths;
  for (int i = 0; i < n; i++) lengths.push_back(3 + i * 7 % 11);
  return lengths;
}

}  // namespace

TEST("samples are read as they were written; files of anything else are refused") {
  const File file({3, 2 * 5, 2 * 6 + 1, 2 * 7 + 1, 1, 2 * 9 + 1}, 2);
  const Dataset data(file.path, 10);
  CHECK(data.size() == 2 && data.tokens() == 4 && data.answer_tokens() == 3 && data.length(0) == 3);
  CHECK(data.sample(0).ids == std::vector<int32_t>({5, 6, 7}));
  CHECK(data.sample(0).answer == std::vector<uint8_t>({0, 1, 1}));
  CHECK(data.sample(1).ids == std::vector<int32_t>({9}));
  CHECK_THROWS("CHECKPOINT_INVALID", "sample 2 has token 9; the model has 9", Dataset(file.path, 9));
  CHECK_THROWS("CHECKPOINT_INVALID", "ends within sample 1", Dataset(File({4, 2, 2}, 1).path, 10));
  CHECK_THROWS("CHECKPOINT_INVALID", "ends within sample 1", Dataset(File({-1, 2, 2}, 1).path, 10));
  CHECK_THROWS("CHECKPOINT_INVALID", "has 1 samples of 2", Dataset(File({1, 2}, 2).path, 10));
  CHECK_THROWS("FILE_NOT_FOUND", "none", Dataset(file.path + "-none", 10));
}

TEST("each epoch has each sample once, in another order; batches are full and hold no more rows than they may") {
  const std::vector<int32_t> lengths = lengths_of(40);
  const PlanOptions options{.seed = 7, .rows = 30, .epochs = 3, .held_out = 0.1, .batches = 2};
  const BatchPlan plan(lengths, lengths, options), again(lengths, lengths, options);
  CHECK(plan.held_out().size() == 4 && plan.training_samples() == 36 && plan.batches() % 2 == 0);
  const std::set<int64_t> held(plan.held_out().begin(), plan.held_out().end());
  CHECK(held.size() == 4);
  std::vector<int64_t> order;
  int64_t most = 0;
  for (int64_t batch = 0; batch < plan.batches(); batch++) {
    const std::vector<int64_t> samples = plan.samples_of(batch);
    CHECK(!samples.empty() && plan.first_index(batch) == order.size());
    CHECK(samples == again.samples_of(batch));
    int64_t rows = 0;
    for (const int64_t sample : samples) {
      CHECK(!held.contains(sample));
      rows += lengths[static_cast<size_t>(sample)];
      order.push_back(sample);
    }
    CHECK(rows <= 30);
    most = std::max(most, rows);
    if (batch > 0) {  // the first of this batch had no room in the one before, but at the end of the data
      int64_t before = lengths[static_cast<size_t>(samples[0])];
      for (const int64_t sample : plan.samples_of(batch - 1)) before += lengths[static_cast<size_t>(sample)];
      CHECK(before > 30 || plan.first_index(batch) == 3 * 36);
    }
  }
  CHECK(plan.most_rows() == most && plan.longest() == *std::max_element(lengths.begin(), lengths.end()));
  CHECK(order.size() >= 3 * 36);
  for (size_t epoch = 0; epoch < 3; epoch++) {
    const auto at = order.begin() + static_cast<std::ptrdiff_t>(36 * epoch);
    CHECK(std::set<int64_t>(at, at + 36).size() == 36);
    if (epoch > 0) CHECK(!std::equal(at, at + 36, order.begin()));
  }
  PlanOptions other = options;
  other.seed = 8;
  CHECK(BatchPlan(lengths, lengths, other).samples_of(0) != plan.samples_of(0));
}

TEST("a budget of tokens ends with the sample that fills it; a sample larger than a batch is one") {
  const std::vector<int32_t> lengths = lengths_of(10);
  const BatchPlan plan(lengths, lengths, {.rows = 4, .tokens = 50});
  int64_t tokens = 0, last = 0;
  for (int64_t batch = 0; batch < plan.batches(); batch++) {
    CHECK(plan.samples_of(batch).size() == 1);  // none is shorter than 3
    tokens += last = lengths[static_cast<size_t>(plan.samples_of(batch)[0])];
  }
  CHECK(tokens >= 50 && tokens - last < 50);
  CHECK_THROWS("INVALID_OPTION", "nothing to train on", BatchPlan({}, {}, {}));
}

TEST("initial weights: ones, and normal numbers of the deviations they should have") {
  const ModelConfig config = config_of(true, 0);
  const Layout layout(config);
  const std::vector<float> weights = initial_weights(config, layout, 3);
  CHECK(weights == initial_weights(config, layout, 3) && weights != initial_weights(config, layout, 4));
  for (const Parameter& p : layout.parameters()) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < p.elements(); i++) {
      const double w = weights[static_cast<size_t>(p.offset + i)];
      sum += w;
      squares += w * w;
    }
    const auto n = static_cast<double>(p.elements());
    const bool residual = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
    const double deviation = p.vector ? 0 : residual ? 0.02 / std::sqrt(2.0 * config.shape.layers) : 0.02;
    if (!p.name.ends_with(".bias")) CHECK_NEAR(sum / n, p.vector ? 1 : 0, 1e-9 + 5 * deviation / std::sqrt(n));
    if (!p.vector) CHECK_NEAR(std::sqrt(squares / n) / deviation, 1, 5 / std::sqrt(2 * n));
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
