// The samples of a run, in a file that is mapped, and which of them make a batch.
//
// The file: 8 bytes "SDARSMP1", for each sample its length and its tokens as int32, at the end the number of samples as
// int64. A token is 2 · id + 1 where it is part of the answer, else 2 · id.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/recipe.h"
#include "util/mapped_file.h"

namespace sdar::train {

class Dataset {
 public:
  /// Throws Error: FILE_NOT_FOUND, FILE_UNREADABLE, CHECKPOINT_INVALID (no such file, or ids beyond the vocabulary).
  Dataset(const std::string& path, int32_t vocabulary);

  int64_t size() const { return static_cast<int64_t>(starts_.size()); }
  int32_t length(int64_t i) const { return at(i)[-1]; }
  Sample sample(int64_t i) const;
  /// Tokens of all samples, and those of them in answers.
  int64_t tokens() const { return tokens_; }
  int64_t answer_tokens() const { return answer_tokens_; }

 private:
  const int32_t* at(int64_t i) const {
    return reinterpret_cast<const int32_t*>(file_.bytes().data()) + starts_[static_cast<size_t>(i)];
  }

  MappedFile file_;
  std::vector<int64_t> starts_;  ///< of each sample's tokens, in int32
  int64_t tokens_ = 0, answer_tokens_ = 0;
};

struct PlanOptions {
  uint64_t seed = 0;
  int64_t rows = 4096;  ///< of a batch at most, unless a sample alone has more
  int64_t epochs = 1;   ///< passes over the samples, unless `tokens` says otherwise
  int64_t tokens = 0;   ///< of samples in the whole run; 0: `epochs` decide
  double held_out = 0;  ///< share of the samples that are never trained on, rounded down
  int32_t batches = 1;  ///< of a step: the run ends with a whole step, for which it goes on into one epoch more
};

/// The batches of a run. Samples come in a random order, another one in each epoch, and fill a batch up to `rows`; none is
/// left out. A function of its arguments alone.
class BatchPlan {
 public:
  /// `rows_of` is the rows of each sample. Throws Error(INVALID_OPTION) where nothing is left to train on.
  BatchPlan(std::vector<int32_t> lengths, std::vector<int32_t> rows_of, const PlanOptions& options);

  int64_t batches() const { return static_cast<int64_t>(starts_.size()) - 1; }
  /// The samples of a batch, by their numbers in the data.
  std::vector<int64_t> samples_of(int64_t batch) const;
  /// How many samples the batches before it have.
  uint64_t first_index(int64_t batch) const { return static_cast<uint64_t>(starts_[static_cast<size_t>(batch)]); }
  const std::vector<int64_t>& held_out() const { return held_out_; }
  int64_t training_samples() const { return static_cast<int64_t>(training_.size()); }
  /// Of the largest batch.
  int64_t most_rows() const { return most_rows_; }
  /// Of the largest sample, also among those held out.
  int64_t longest() const { return longest_; }

 private:
  /// Sample `place` of the endless sequence of epochs.
  int64_t sample_at(int64_t place) const;

  uint64_t seed_;
  std::vector<int64_t> held_out_, training_;
  std::vector<int64_t> starts_;  ///< [batches + 1], places in the sequence
  int64_t most_rows_ = 0, longest_ = 0;
  mutable int64_t epoch_ = -1;
  mutable std::vector<int64_t> order_;  ///< of that epoch
};

}  // namespace sdar::train
