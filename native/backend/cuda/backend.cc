#include "backend/cuda/backend.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "backend/cuda/device.h"
#include "backend/cuda/packing.h"
#include "model/forward.h"
#include "util/error.h"
#include "util/machine.h"

namespace sdar::cuda {
namespace {

constexpr int64_t kSpare = int64_t{64} << 20;  ///< bytes left for graphs, growing arrays and the driver

size_t logits_count(const ModelShape& shape) { return size_t{kLmHeadChunk} * static_cast<size_t>(shape.vocabulary); }
/// All that memory_ hands out beside the pages.
size_t working_bytes(const ModelShape& shape, int32_t rows) {
  return Workspace::bytes(shape, rows) + step_buffer_bytes(shape, rows) +
         Arena::padded(logits_count(shape) * sizeof(float));
}
/// What no GPU has been measured with is opt-in, by an option or an environment variable that is "1".
bool opted_in(bool option, const char* variable) {
  const char* value = std::getenv(variable);
  return option || (value && std::string_view(value) == "1");
}
SampledToken host_token(const DeviceSampledToken& t) {
  return {t.token, t.confidence, t.logprob, t.entropy, t.max, t.logsumexp, t.finite != 0};
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

CudaBackend::CudaBackend(const SdarCudaInterface& interface, int32_t index, const Options& options)
    : device_(interface, index),
      threads_(options.threads > 0 ? options.threads : std::min(usable_cores(), 16)),
      weights_(device_),
      memory_(device_) {
  // It has nothing to do; a library without code for this GPU is found out now, not by the first request.
  const GatherRowsParams none;
  device_.try_launch(Kernel::gather_rows, &none, sizeof none);
  const SdarCudaProperties& properties = device_.properties();
  state_.multiprocessors = properties.multiprocessors;
  state_.dependent_launch = properties.major >= 9 && opted_in(options.dependent_launch, "SDAR_CUDA_PDL");
  state_.wide_experts = opted_in(options.wide_experts, "SDAR_CUDA_WIDE_EXPERTS");
  state_.warpgroup_mma = properties.major == 9 && opted_in(options.warpgroup_mma, "SDAR_CUDA_WARPGROUP_MMA") &&
                         warpgroup_gemm_is_bit_exact(device_);
}

std::string CudaBackend::isa() const {
  const SdarCudaProperties& properties = device_.properties();
  return "sm_" + std::to_string(properties.major * 10 + properties.minor) + (state_.warpgroup_mma ? " wgmma" : "");
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
    advice_ = "weights: \"int4\" is the smallest format; a GPU of more memory, or device: \"cpu\", is needed";
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
  const int64_t taken = static_cast<int64_t>(working_bytes(shape, buffer_rows(max_rows))) + kSpare;
  // A tenth is left to others on the GPU.
  return (static_cast<int64_t>(device_.free_memory()) - taken) * 9 / 10;
}

void CudaBackend::configure(const ModelShape& shape, const CacheShape& cache, const ModelWeights& weights,
                            const RunOptions& options) {
  if (const std::string what = unsupported(shape, WeightFormat::bf16, cache.format); !what.empty())
    throw Error(code::kUnsupportedModel, "device \"" + device() + "\" cannot run " + what);
  model_ = &weights;
  options_ = options;
  state_.shape = shape;
  state_.mask_id = options.mask_id;
  if (options.time_ops) state_.dependent_launch = false;  // timestamps lie between launches
  const int32_t rows = buffer_rows(options.max_rows);
  const size_t working = working_bytes(shape, rows);
  const size_t page = page_bytes(shape, cache.format), pages = page * static_cast<size_t>(cache.pages);
  const int64_t left = static_cast<int64_t>(device_.free_memory()) - static_cast<int64_t>(working) - kSpare;
  const int64_t fitting = left / static_cast<int64_t>(page) * kPageSlots;
  memory_.reserve(working + Arena::padded(pages),
                  "the KV cache of " + std::to_string(cache.pages * kPageSlots) + " tokens and the workspace",
                  fitting > 0 ? "kvCache: { tokens: " + std::to_string(fitting) + " } fits" : advice_);
  state_.pages = {memory_.take<uint16_t>(pages / 2, "pages"), shape.layers, shape.kv_heads, shape.head_dim};
  state_.work = Workspace::make(memory_, device_, shape, rows);
  state_.buffers = make_step_buffers(memory_, device_, shape, rows);
  for (const LayerWeights& layer : weights.layers) {
    if (!layer.router) continue;
    upload_expert_pointers(layer.expert_gate_up_views);
    upload_expert_pointers(layer.expert_down_views);
  }
  input_ = std::make_unique<StepInput>(device_, shape, options.max_rows);
  device_.record_event(0);
  device_.wait_event(0);
}

void CudaBackend::upload_expert_pointers(std::span<const Weight* const> experts) {
  const uint8_t** at = state_.work.expert_data + state_.experts.size() * static_cast<size_t>(state_.shape.experts);
  std::vector<const uint8_t*> pointers;
  for (const Weight* expert : experts) pointers.push_back(held(*expert).matrix.data);
  device_.upload_now(at, pointers.data(), pointers.size() * sizeof pointers[0]);
  state_.experts[experts.data()] = at;
}

std::span<const SequenceResult> CudaBackend::run(const Step& step) {
  input_->lay_out(step);
  if ((input_->shape().sampling || input_->shape().ranking || step.logits) && !state_.logits)
    state_.logits = memory_.take<float>(logits_count(state_.shape), "logits");
  LaunchGraph once(device_, options_.time_ops);
  if (step.logits) record(once, step.logits);
  LaunchGraph& graph = step.logits ? once : recorded();
  try {
    input_->upload();
    if (step.logits) {
      graph.run_once();
    } else {
      graph.run();
    }
    input_->download();
    device_.record_event(0);
  } catch (const Error&) {
    wait_quietly();
    throw;
  }
  device_.wait_event(0);
  graph.add_seconds(seconds_);
  results_.resize(step.sequences().size());
  size_t slot = 0;
  for (size_t i = 0; i < results_.size(); i++) {
    results_[i].filled = 0;
    results_[i].finite = true;
    results_[i].candidates = results_[i].wanted = results_[i].top = {};
    if (step.sequences()[i].denoise) take_result(step.sequences()[i], input_->outcomes[slot++], results_[i]);
  }
  share_ranked(step);
  return results_;
}

void CudaBackend::share_ranked(const Step& step) {
  const RankedToken* next = input_->ranked.host();
  const auto take = [&](size_t n) { return std::span(std::exchange(next, next + n), n); };
  for (size_t i = 0; i < results_.size(); i++) {
    const StepSequence& s = step.sequences()[i];
    if (!s.denoise) continue;
    const auto masked = static_cast<size_t>(std::popcount(s.masked));
    results_[i].candidates = take(masked * static_cast<size_t>(s.candidates));
    results_[i].wanted = take(s.limits.empty() ? 0 : masked);
    results_[i].top = take(masked * static_cast<size_t>(s.sampling->top_logprobs));
  }
}

/// After a step that broke off: what it has issued still reads the arrays that the next one fills.
void CudaBackend::wait_quietly() noexcept {
  try {
    device_.record_event(0);
    device_.wait_event(0);
  } catch (const Error&) {  // the GPU has failed, and no step will follow
  }
}

LaunchGraph& CudaBackend::recorded() {
  if (version_ != input_->version() || graphs_.size() > kMaxShapes) graphs_.clear();
  version_ = input_->version();
  const auto at = graphs_.find(input_->shape());
  if (at != graphs_.end()) {
    replayed_++;
    return *at->second;
  }
  auto graph = std::make_unique<LaunchGraph>(device_, options_.time_ops);
  record(*graph, nullptr);
  return *graphs_.emplace(input_->shape(), std::move(graph)).first->second;
}

void CudaBackend::record(LaunchGraph& graph, float* logits) {
  const StepShape& shape = input_->shape();
  LaunchRecorder recorder(state_, *input_, graph, logits);
  recorder.gather_rows();
  forward(recorder, *model_, shape.rows, shape.sampled > 0);
  recorder.select_unmask();
  graph.begin_kind(nullptr);
}

void CudaBackend::take_result(const StepSequence& sequence, const DenoiseOutcome& outcome,
                              SequenceResult& result) const {
  result.filled = outcome.filled;
  result.finite = outcome.finite != 0;
  const DeviceSampledToken* token = input_->results.host() + outcome.first;
  for (uint64_t left = sequence.masked; left; left &= left - 1)
    result.at[std::countr_zero(left)] = host_token(*token++);
}

}  // namespace sdar::cuda
