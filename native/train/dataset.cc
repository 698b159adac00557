#include "train/dataset.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "denoise/philox.h"
#include "util/error.h"

namespace sdar::train {
namespace {

constexpr char kMagic[] = "SDARSMP1";
constexpr size_t kHeader = 8, kTrailer = 8;
constexpr uint32_t kEpoch = 0x65706f63u, kHeldOut = 0x68656c64u;

/// A random order of `values`: of (seed, purpose, number).
void shuffle(std::vector<int64_t>& values, uint64_t seed, uint32_t purpose, uint64_t number) {
  for (size_t i = values.size(); i > 1; i--) {
    const PhiloxWords words = philox4x32_10(
        {{static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), static_cast<uint32_t>(number), purpose}}, seed);
    const uint64_t bits = uint64_t{words.w[0]} << 32 | words.w[1];
    std::swap(values[i - 1], values[bits % i]);
  }
}

}  // namespace

Dataset::Dataset(const std::string& path, int32_t vocabulary) : file_(path) {
  const auto invalid = [&](const std::string& what) { throw Error(code::kCheckpointInvalid, path + ": " + what); };
  const auto bytes = file_.bytes();
  if (bytes.size() < kHeader + kTrailer || bytes.size() % sizeof(int32_t) != 0 ||
      std::memcmp(bytes.data(), kMagic, 8) != 0)
    invalid("holds no samples");
  int64_t count;
  std::memcpy(&count, bytes.data() + bytes.size() - kTrailer, sizeof count);
  const auto* words = reinterpret_cast<const int32_t*>(bytes.data());
  const auto end = static_cast<int64_t>((bytes.size() - kTrailer) / sizeof(int32_t));
  for (int64_t at = kHeader / sizeof(int32_t); at < end;) {
    const int32_t length = words[at++];
    if (length < 1 || length > end - at) invalid("ends within sample " + std::to_string(size() + 1));
    for (int64_t i = at; i < at + length; i++) {
      if (words[i] < 0 || words[i] / 2 >= vocabulary)
        invalid("sample " + std::to_string(size() + 1) + " has token " + std::to_string(words[i] / 2) +
                "; the model has " + std::to_string(vocabulary));
      answer_tokens_ += words[i] & 1;
    }
    starts_.push_back(at);
    tokens_ += length;
    at += length;
  }
  if (size() != count) invalid("has " + std::to_string(size()) + " samples of " + std::to_string(count));
  if (file_.damaged()) invalid("was written to while it was read");
}

Sample Dataset::sample(int64_t i) const {
  const int32_t *from = at(i), count = length(i);
  Sample sample;
  sample.ids.reserve(static_cast<size_t>(count));
  sample.answer.reserve(static_cast<size_t>(count));
  for (int32_t j = 0; j < count; j++) {
    sample.ids.push_back(from[j] >> 1);
    sample.answer.push_back(static_cast<uint8_t>(from[j] & 1));
  }
  return sample;
}

BatchPlan::BatchPlan(std::vector<int32_t> lengths, std::vector<int32_t> rows_of, const PlanOptions& options)
    : seed_(options.seed) {
  std::vector<int64_t> all(lengths.size());
  std::iota(all.begin(), all.end(), 0);
  const auto held = static_cast<size_t>(options.held_out * static_cast<double>(all.size()));
  if (held >= all.size())
    throw Error(code::kInvalidOption, "nothing to train on: of " + std::to_string(all.size()) + " samples " +
                                          std::to_string(held) + " are held out");
  if (held > 0) {
    shuffle(all, seed_, kHeldOut, 0);
    held_out_.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(held));
    std::sort(held_out_.begin(), held_out_.end());
    all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(held));
    std::sort(all.begin(), all.end());
  }
  training_ = std::move(all);

  if (!rows_of.empty()) longest_ = *std::max_element(rows_of.begin(), rows_of.end());
  const int64_t last = options.epochs * training_samples();
  int64_t tokens = 0;
  const auto done = [&](int64_t place) { return options.tokens > 0 ? tokens >= options.tokens : place >= last; };
  starts_ = {0};
  for (int64_t place = 0; !done(place) || batches() % options.batches != 0;) {
    int64_t rows = 0;
    do {
      const auto sample = static_cast<size_t>(sample_at(place));
      if (rows > 0 && rows + rows_of[sample] > options.rows) break;
      rows += rows_of[sample];
      tokens += lengths[sample];
      place++;
    } while (!done(place));
    starts_.push_back(place);
    most_rows_ = std::max(most_rows_, rows);
  }
}

std::vector<int64_t> BatchPlan::samples_of(int64_t batch) const {
  std::vector<int64_t> samples;
  for (int64_t place = starts_[static_cast<size_t>(batch)]; place < starts_[static_cast<size_t>(batch) + 1]; place++)
    samples.push_back(sample_at(place));
  return samples;
}

int64_t BatchPlan::sample_at(int64_t place) const {
  const int64_t epoch = place / training_samples();
  if (epoch != epoch_) {
    order_ = training_;
    shuffle(order_, seed_, kEpoch, static_cast<uint64_t>(epoch));
    epoch_ = epoch;
  }
  return order_[static_cast<size_t>(place % training_samples())];
}

}  // namespace sdar::train
