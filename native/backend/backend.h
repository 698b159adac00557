// What computes steps: the contract between the engine and a device. One Backend serves one engine, called by one
// thread at a time. It owns weights, pages and workspaces. A row's numbers never depend on its batch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backend/formats.h"
#include "backend/rope.h"
#include "backend/step.h"
#include "backend/weights.h"

namespace sdar {

struct ModelWeights;  // model/weights.h

/// Shape of a model, as far as a backend must know it to lay out pages and workspaces.
struct ModelShape {
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t intermediate = 0;  ///< of the dense MLP
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocabulary = 0;
  int32_t context = 0;  ///< max_position_embeddings
  int32_t experts = 0;  ///< 0: dense
  int32_t experts_per_token = 0;
  int32_t moe_intermediate = 0;
  float rms_eps = 1e-6f;
  float rope_theta = 1e6f;
  RopeScaling rope_scaling;
  bool attention_bias = false;  ///< of the q, k, v and output projections
};

struct CacheShape {
  int64_t pages = 0;
  KvFormat format = KvFormat::f32;
};

struct RunOptions {
  int32_t max_rows = 0;  ///< of a step
  int32_t mask_id = 0;
  bool time_ops = false;  ///< seconds() on a GPU, too, where steps take longer for it
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// "cpu" or "cuda:0"; the instruction set that runs ("avx512", "portable", "sm_90"), worker threads.
  virtual std::string device() const = 0;
  virtual std::string isa() const = 0;
  virtual int threads() const = 0;
  /// Names the packed layout: bytes packed under one id can be adopted under the same id only.
  virtual std::string layout_id() const = 0;

  /// Packing is split into units (panels of rows) that may be packed by several threads at once, in any order.
  virtual size_t packed_bytes(const WeightSpec& spec) const = 0;
  virtual int64_t pack_units(const WeightSpec& spec) const = 0;
  virtual void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t unit_begin, int64_t unit_end,
                    std::byte* packed) const = 0;
  /// Announces that all weights, so many packed bytes, are about to be adopted. True: adopt copies them, so that the
  /// packed bytes need not be kept. Throws Error(OUT_OF_MEMORY).
  virtual bool begin_adopting(size_t /*bytes*/, WeightFormat /*format*/) { return false; }
  /// `packed` (64-byte aligned, packed_bytes(spec) long) outlives the handle.
  virtual std::unique_ptr<Weight> adopt(const WeightSpec& spec, const std::byte* packed) = 0;

  /// Bytes of one page over all layers, keys and values.
  virtual size_t page_bytes(const ModelShape& shape, KvFormat format) const = 0;
  /// Bytes for pages in a memory of the backend's own, once the weights are there; none: pages lie in the host's
  /// memory.
  virtual std::optional<int64_t> cache_memory(const ModelShape& /*shape*/, int32_t /*max_rows*/) const { return {}; }
  /// Once, before the first step. `weights` were adopted here and outlive the backend's last step. Throws
  /// Error(OUT_OF_MEMORY).
  virtual void configure(const ModelShape& shape, const CacheShape& cache, const ModelWeights& weights,
                         const RunOptions& options) = 0;

  /// Computes a step of at most max_rows rows and max_sequences() sequences: its forward pass, then select and unmask.
  /// Results in the order of its sequences, valid until the next call. Throws Error: DEVICE_FAILED, OUT_OF_MEMORY,
  /// CHECKPOINT_TRUNCATED (mapped weights were cut short), INTERNAL.
  virtual std::span<const SequenceResult> run(const Step& step) = 0;
  /// From any thread, when nothing more is wanted of this backend: the step that runs, and later ones, end soon with
  /// Error(DISPOSED). Where steps are short, as on a GPU, nothing need happen.
  virtual void interrupt() {}
  /// Whether segments may verify (Segment::masks).
  virtual bool can_verify() const { return true; }
  virtual int32_t max_sequences() const { return std::numeric_limits<int32_t>::max(); }
  /// Since the start; what a backend cannot tell apart stays 0.
  virtual const StepSeconds& seconds() const = 0;
  /// Experts whose weights were read since the start: a sum over layers and steps. 0 where that is not counted.
  virtual int64_t experts_read() const { return 0; }
};

}  // namespace sdar
