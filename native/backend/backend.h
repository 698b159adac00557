// What a device must offer: the op table that model/forward walks. One Backend serves one engine, called by one thread
// at a time. Pointers named x, out, qkv … are memory of Backend::allocate. A row's numbers never depend on its batch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backend/attention.h"
#include "backend/formats.h"
#include "backend/head.h"
#include "backend/linear.h"
#include "backend/moe.h"
#include "backend/segment.h"
#include "backend/step.h"
#include "backend/weights.h"

namespace sdar {

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
};

struct CacheShape {
  int64_t pages = 0;
  KvFormat format = KvFormat::f32;
};

/// Makes the ops of a step of `rows` rows, begin_step and finish_step left out; `with_head`: ending in the head.
using StepWalk = std::function<void(int32_t rows, bool with_head)>;

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
  /// Once, before the first step. max_rows bounds M of every step. Throws Error(OUT_OF_MEMORY).
  virtual void configure(const ModelShape& shape, const CacheShape& cache, int32_t max_rows) = 0;
  /// Rows that memory for steps of up to `max_rows` rows must have.
  virtual int32_t buffer_rows(int32_t max_rows) const { return max_rows; }
  /// Zeroed, 64-byte aligned, owned by the backend until it is destroyed.
  virtual float* allocate(size_t floats) = 0;
  /// A runner that chooses and fills where the step is computed, after configure(). Null: the host does that. `walk` is
  /// called when ops have to be made; embed then has no ids and the head no requests: they are where the step is.
  /// `timed`: its seconds() are to be known, though steps take longer for it.
  virtual std::unique_ptr<StepRunner> make_runner(int32_t /*mask_id*/, StepWalk /*walk*/, bool /*timed*/) {
    return nullptr;
  }

  /// Announces the rows of the step: per-step tables (RoPE, work split) are made here.
  virtual void begin_step(std::span<const Segment> segments, int32_t rows) = 0;
  /// x[M, hidden] = table[ids].
  virtual void embed(const Weight& table, std::span<const int32_t> ids, float* x) = 0;
  virtual void norm_linear(const NormLinearArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void linear_add(const LinearAddArgs& args) = 0;
  virtual void moe(const MoeArgs& args) = 0;
  virtual void head(const LmHeadArgs& args) = 0;
  /// Waits until everything asked for has been computed and results are readable on the host.
  virtual void finish_step() = 0;
};

}  // namespace sdar
