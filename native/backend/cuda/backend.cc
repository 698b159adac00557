#include "backend/cuda/backend.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string_view>

#include "backend/cuda/packing.h"
#include "backend/cuda/products_agree.h"
#include "backend/cuda/runner.h"
#include "util/cores.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

constexpr int64_t kSpare = int64_t{64} << 20;  ///< bytes left for graphs, growing arrays and the driver

size_t logits_count(const ModelShape& shape) { return size_t{kLmHeadChunk} * static_cast<size_t>(shape.vocabulary); }
/// All that memory_ hands out beside the pages.
size_t working_bytes(const ModelShape& shape, int32_t rows) {
  return Workspace::bytes(shape, rows) + forward_bytes(shape, rows) +
         Arena::padded(logits_count(shape) * sizeof(float));
}
/// What a card does that others do not can be turned off by a variable of the environment that is "0".
bool wanted(const char* name) {
  const char* value = std::getenv(name);
  return !value || std::string_view(value) != "0";
}
std::string mib(int64_t bytes) { return std::to_string(std::max<int64_t>(bytes, 0) >> 20) + " MiB"; }

}  // namespace

std::string unsupported(const ModelShape& s, WeightFormat weights, KvFormat kv) {
  const auto refuse = [](const std::string& what, const std::string& allowed) {
    return what + "; allowed: " + allowed;
  };
  if (weights == WeightFormat::f32) return refuse("weights f32", "bf16, int8, int4");
  if (kv != KvFormat::bf16) return refuse(std::string("kvCache.dtype ") + name_of(kv), "bf16");
  if (s.head_dim != 64 && s.head_dim != 128)
    return refuse("heads of " + std::to_string(s.head_dim) + " columns", "64, 128");
  if (s.hidden % 8 != 0) return refuse("a hidden size of " + std::to_string(s.hidden), "multiples of 8");
  if (s.intermediate > 0 && s.intermediate < 64)
    return refuse("an intermediate size of " + std::to_string(s.intermediate), "64 or more");
  if (s.experts > kMaxExperts)
    return refuse(std::to_string(s.experts) + " experts", "up to " + std::to_string(kMaxExperts));
  if (s.experts_per_token > kMaxExpertsPerToken)
    return refuse(std::to_string(s.experts_per_token) + " experts per token",
                  "up to " + std::to_string(kMaxExpertsPerToken));
  return {};
}

CudaBackend::CudaBackend(const SdarCudaInterface& interface, int32_t index, int threads)
    : device_(interface, index),
      threads_(threads > 0 ? threads : std::min(usable_cores(), 16)),
      weights_(device_),
      memory_(device_) {
  // It has nothing to do; a library without code for this card is found out now, not by the first request.
  const GatherRowsParams none;
  device_.try_launch(Kernel::gather_rows, &none, sizeof none);
  early_ = device_.card().major >= 9 && wanted("SDAR_CUDA_EARLY_LAUNCHES");
  warpgroups_ = device_.card().major == 9 && wanted("SDAR_CUDA_WARPGROUPS") && products_agree(device_);
}

std::string CudaBackend::isa() const {
  return "sm_" + std::to_string(device_.card().major * 10 + device_.card().minor) + (warpgroups_ ? " wgmma" : "");
}

size_t CudaBackend::packed_bytes(const WeightSpec& spec) const { return cuda::packed_bytes(spec); }
int64_t CudaBackend::pack_units(const WeightSpec& spec) const { return cuda::pack_units(spec); }
void CudaBackend::pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t unit_begin,
                       int64_t unit_end, std::byte* packed) const {
  cuda::pack(spec, parts, unit_begin, unit_end, packed);
}

bool CudaBackend::begin_adopting(size_t bytes, WeightFormat format) {
  // Bytes per weight: bf16 2, int8 1.03, int4 0.56; embedding and head stay at 8 bits.
  if (format == WeightFormat::bf16) {
    advice_ = "weights: \"int8\" takes about " + mib(static_cast<int64_t>(bytes) * 52 / 100) + ", \"int4\" " +
              mib(static_cast<int64_t>(bytes) * 30 / 100);
  } else if (format == WeightFormat::int8) {
    advice_ = "weights: \"int4\" takes about " + mib(static_cast<int64_t>(bytes) * 57 / 100);
  } else {
    advice_ = "weights: \"int4\" is the smallest format; a card of more memory, or device: \"cpu\", is needed";
  }
  // Each weight begins at a multiple of 256 here, of 64 in `bytes`.
  weights_.reserve(bytes + bytes / 256 + (size_t{1} << 20), "the weights", advice_);
  return true;
}

std::unique_ptr<Weight> CudaBackend::adopt(const WeightSpec& spec, const std::byte* packed) {
  auto weight = std::make_unique<DeviceWeight>();
  weight->spec = spec;
  const size_t bytes = packed_bytes(spec);
  void* memory = weights_.take(bytes, "a weight");
  device_.upload_now(memory, packed, bytes);
  const WeightFormat format = held_format(spec);
  if (format == WeightFormat::f32) weight->values = static_cast<const float*>(memory);
  weight->matrix = {.data = static_cast<const uint8_t*>(memory),
                    .kind = spec.kind,
                    .format = format,
                    .rows = static_cast<int32_t>(spec.rows),
                    .cols = static_cast<int32_t>(spec.cols)};
  return weight;
}

size_t CudaBackend::page_bytes(const ModelShape& shape, KvFormat) const {
  return size_t{2} * shape.layers * 2 * shape.kv_heads * kPageSlots * shape.head_dim;
}

std::optional<int64_t> CudaBackend::cache_memory(const ModelShape& shape, int32_t max_rows) const {
  const int32_t rows = buffer_rows(max_rows);
  const int64_t taken = static_cast<int64_t>(working_bytes(shape, rows)) + kSpare;
  // A tenth is left to others on the card.
  return (static_cast<int64_t>(device_.free_memory()) - taken) * 9 / 10;
}

void CudaBackend::configure(const ModelShape& shape, const CacheShape& cache, int32_t max_rows) {
  if (const std::string what = unsupported(shape, WeightFormat::bf16, cache.format); !what.empty())
    throw Error(code::kUnsupportedModel, "device \"" + device() + "\" cannot run " + what);
  shape_ = shape;
  rows_capacity_ = buffer_rows(max_rows);
  const size_t working = working_bytes(shape, rows_capacity_);
  const size_t page = page_bytes(shape, cache.format), pages = page * static_cast<size_t>(cache.pages);
  const int64_t left = static_cast<int64_t>(device_.free_memory()) - static_cast<int64_t>(working) - kSpare;
  const int64_t fitting = left / static_cast<int64_t>(page) * kPageSlots;
  memory_.reserve(working + Arena::padded(pages),
                  "the KV cache of " + std::to_string(cache.pages * kPageSlots) + " tokens and the workspace",
                  fitting > 0 ? "kvCache: { tokens: " + std::to_string(fitting) + " } fits" : advice_);
  pages_ = {memory_.take<uint16_t>(pages / 2, "pages"), shape.layers, shape.kv_heads, shape.head_dim};
  work_ = Workspace::make(memory_, device_, shape, rows_capacity_);
  input_ = std::make_unique<StepInput>(device_, shape, max_rows);
  device_.mark(0);
  device_.wait(0);
}

int32_t CudaBackend::buffer_rows(int32_t max_rows) const {
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(rounded_rows(max_rows))));
}

// Some of it will hold bf16 tiles, whose columns are a multiple of 128: no more bytes than f32 of 64 columns or more.
float* CudaBackend::allocate(size_t floats) {
  auto* memory = memory_.take<float>(floats, "activations");
  device_.fill(memory, 0, floats * sizeof(float));
  return memory;
}

std::unique_ptr<StepRunner> CudaBackend::make_runner(int32_t mask_id, StepWalk walk, bool timed) {
  if (timed) early_ = false;  // stamps lie between launches
  return std::make_unique<CudaRunner>(*this, mask_id, std::move(walk), timed);
}

void CudaBackend::prepare_sampling() {
  if (!logits_) logits_ = memory_.take<float>(logits_count(shape_), "logits");
}

}  // namespace sdar::cuda
