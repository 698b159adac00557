// Which weights a model has, from which tensors they are made, and where those come from: a checkpoint or a generator.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/packed_cache.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "util/mapped_file.h"

namespace sdar {

/// A tensor by its name in the checkpoint: a matrix [rows, cols] or, with rows == 1 and `vector`, of shape [cols].
struct TensorSpec {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
  bool vector = false;

  int64_t elements() const { return rows * cols; }
};

/// One packed weight: what it is, its parts in order, and the handle in ModelWeights that it becomes.
struct PlannedWeight {
  WeightSpec spec;
  std::vector<TensorSpec> parts;
  std::unique_ptr<Weight>* handle = nullptr;
};

/// All weights of the model, in the order in which they lie in memory. Sizes the layers of `weights`; the handles point
/// into it. A pure function of its arguments.
std::vector<PlannedWeight> plan_weights(const ModelConfig& config, WeightFormat format, ModelWeights& weights);

/// Hands out tensors one group of weights after the other. release() may be called from any thread, the rest from one.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual int64_t bytes(const TensorSpec& tensor) const = 0;
  /// Valid until close().
  virtual SourceTensor open(const TensorSpec& tensor) = 0;
  /// A hint: these rows have been read.
  virtual void release(const TensorSpec&, int64_t /*row_begin*/, int64_t /*row_end*/) const {}
  virtual void close(const TensorSpec& tensor) = 0;
  /// Throws when what was read may have been wrong.
  virtual void check() const {}
  /// The files that are read; none when packing again is as good as reading packed weights from a file.
  virtual SourceFiles files() const { return {}; }
};

/// The safetensors files of a folder, which hold the planned tensors in the planned shapes (or the constructor throws).
/// Others (buffers that some tools save, the head of a tied model) are passed over.
class CheckpointSource final : public TensorSource {
 public:
  CheckpointSource(const std::string& folder, const std::vector<PlannedWeight>& plan,
                   const std::function<void()>& check = {});
  int64_t bytes(const TensorSpec& tensor) const override;
  SourceTensor open(const TensorSpec& tensor) override;
  void release(const TensorSpec& tensor, int64_t row_begin, int64_t row_end) const override;
  void close(const TensorSpec& tensor) override;
  void check() const override { files_.check_whole(); }
  SourceFiles files() const override { return files_.files(); }
  /// Which tensors are passed over, as a message; empty when none is.
  const std::string& passed_over() const { return passed_over_; }

 private:
  Safetensors files_;
  std::string passed_over_;
};

/// Random tensors in bf16, each a function of seed and name.
class RandomSource final : public TensorSource {
 public:
  RandomSource(uint64_t seed, int threads);
  int64_t bytes(const TensorSpec& tensor) const override { return 2 * tensor.elements(); }
  SourceTensor open(const TensorSpec& tensor) override;
  void close(const TensorSpec& tensor) override { open_.erase(tensor.name); }

 private:
  uint64_t seed_;
  int threads_;
  std::vector<uint16_t> samples_;  ///< normal, sd 0.02, in bf16; tensors draw from them
  std::map<std::string, std::shared_ptr<std::byte>> open_;
};

}  // namespace sdar
