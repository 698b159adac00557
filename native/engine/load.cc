// Makes a Model: the one place that knows which backends exist.
#include <algorithm>
#include <charconv>
#include <string_view>

#include "backend/cpu/cpu.h"
#include "backend/cuda/cuda.h"
#include "engine/engine.h"
#include "util/error.h"
#include "util/machine.h"

namespace sdar {

namespace {

/// With the format of weights decided: what a GPU runs on one that is named, else as the checkpoint is stored.
EngineOptions decided(EngineOptions options, const ModelConfig& config) {
  const bool f32 = config.dtype == DType::f32 && !options.device.starts_with("cuda");
  if (!options.weights) options.weights = f32 ? WeightFormat::f32 : WeightFormat::bf16;
  return options;
}

KvFormat kv_format(const EngineOptions& options) {
  return options.kv_format.value_or(options.weights == WeightFormat::f32 ? KvFormat::f32 : KvFormat::bf16);
}

/// "cuda" is −1, "cuda:N" is N.
int32_t cuda_index(const std::string& device) {
  constexpr std::string_view kPrefix = "cuda:";
  const char* end = device.data() + device.size();
  if (int32_t index = -1; device.starts_with(kPrefix)) {
    const auto parsed = std::from_chars(device.data() + kPrefix.size(), end, index);
    if (parsed.ec == std::errc() && parsed.ptr == end && index >= 0) return index;
  }
  throw Error(code::kUnsupportedDevice, "device is \"" + device + "\"; allowed: auto, cpu, cuda, cuda:N");
}

cuda::Options cuda_options(const EngineOptions& options, int32_t index) {
  return {.device = index,
          .threads = options.threads,
          .warpgroup_mma = options.cuda_warpgroup_mma,
          .dependent_launch = options.cuda_dependent_launch};
}

std::unique_ptr<Backend> make_cuda_backend(const ModelConfig& config, const EngineOptions& options) {
  const int32_t index = options.device == "cuda" ? -1 : cuda_index(options.device);
  if (!options.isa.empty())
    throw Error(code::kInvalidOption, "isa is \"" + options.isa + "\", of the CPU; give it with device \"cpu\" only");
  auto backend = cuda::make_backend(cuda_options(options, index));
  const std::string what = cuda::unsupported(config.shape, *options.weights, kv_format(options));
  if (!what.empty()) throw Error(code::kUnsupportedDevice, "device \"" + options.device + "\" cannot run " + what);
  return backend;
}

std::unique_ptr<Backend> make_cpu_backend(const EngineOptions& options, const Model* beside) {
  return cpu::make_backend(
      {.threads = options.threads, .isa = options.isa, .beside = beside ? beside->backend.get() : nullptr});
}

/// Whether "auto" tries a GPU: one answers, and the backend can run this.
bool gpu_suits(const ModelConfig& config, const EngineOptions& options) {
  return options.isa.empty() && cuda::unsupported(config.shape, *options.weights, kv_format(options)).empty() &&
         cuda::probe().unavailable.empty();
}

/// Pages in the host's memory are committed by the operating system only when they are first written, so a generous
/// default costs nothing; a GPU's are taken at once.
int64_t cache_pages(const EngineOptions& options, int32_t context, size_t page_bytes,
                    std::optional<int64_t> device_memory) {
  const auto pages = [](int64_t tokens) { return (tokens + kPageSlots - 1) / kPageSlots; };
  int64_t count;
  if (options.kv_tokens > 0) {
    count = pages(options.kv_tokens);
  } else if (options.kv_bytes > 0) {
    count = options.kv_bytes / static_cast<int64_t>(page_bytes);
  } else {
    const double all = static_cast<double>(device_memory ? *device_memory : available_memory() / 4);
    const auto memory = static_cast<int64_t>(all * options.memory_share);
    const int64_t affordable = std::max<int64_t>(memory, 0) / static_cast<int64_t>(page_bytes);
    // Blocks need not fill a page (length 33 leaves half empty), hence twice the context for the one sequence that must
    // fit.
    const int64_t least = 2 * pages(context), most = std::max(least, pages(context) * options.max_concurrent);
    // A GPU that has not so much gets shorter requests; one without room for a page, an error with its numbers.
    count = device_memory && affordable > 0 ? std::min(affordable, most) : std::clamp(affordable, least, most);
  }
  if (count < 1)
    throw Error(code::kCacheTooSmall, "kvCache holds less than one page of " + std::to_string(kPageSlots) +
                                          " tokens (" + std::to_string(page_bytes) + " bytes for this model)");
  return std::min<int64_t>(count, INT32_MAX);
}

/// A model of `config` on `backend`; `make(backend, config, hooks)` gives its weights.
template <class MakeWeights>
std::unique_ptr<Model> assemble_on(std::unique_ptr<Backend> backend, const ModelConfig& config,
                                   const EngineOptions& options, WeightHooks hooks, const MakeWeights& make) {
  auto model = std::make_unique<Model>();
  model->config = config;
  model->backend = std::move(backend);
  model->format = *options.weights;
  hooks.threads = model->backend->threads();
  hooks.cache = options.weight_cache;
  model->weights = make(*model->backend, model->config, hooks);
  const ModelShape& shape = model->config.shape;
  const KvFormat format = kv_format(options);
  model->page_bytes = model->backend->page_bytes(shape, format);
  model->cache = {.pages = cache_pages(options, shape.context, model->page_bytes,
                                       model->backend->cache_memory(shape, options.max_rows)),
                  .format = format};
  model->backend->configure(
      shape, model->cache, model->weights,
      {.max_rows = options.max_rows, .mask_id = model->config.mask_token_id, .time_ops = options.time_steps});
  return model;
}

/// On the device that the options name; with "auto" on a GPU where that works, else on the CPU.
template <class MakeWeights>
std::unique_ptr<Model> assemble(const ModelConfig& config, const EngineOptions& options, WeightHooks hooks,
                                const MakeWeights& make, const Model* beside = nullptr) {
  const auto on = [&](std::unique_ptr<Backend> backend) {
    return assemble_on(std::move(backend), config, options, hooks, make);
  };
  if (options.device == "cpu") return on(make_cpu_backend(options, beside));
  if (options.device != "auto") return on(make_cuda_backend(config, options));
  if (!gpu_suits(config, options)) return on(make_cpu_backend(options, beside));
  int64_t most = -1;
  if (hooks.progress) {
    // Begins again on the CPU, and must not fall.
    hooks.progress = [report = std::move(hooks.progress), &most](int64_t done, int64_t total) {
      if (done > most) report(most = done, total);
    };
  }
  std::string unavailable;
  try {
    return on(cuda::make_backend(cuda_options(options, -1)));
  } catch (const Error& e) {
    if (e.code() != code::kOutOfMemory && e.code() != code::kDeviceFailed && e.code() != code::kUnsupportedDevice)
      throw;
    unavailable = e.what();
  }
  auto model = on(make_cpu_backend(options, beside));
  model->cuda_unavailable = std::move(unavailable);
  return model;
}

}  // namespace

std::unique_ptr<Model> load_model(const EngineOptions& given, WeightHooks hooks, const Model* beside) {
  const ModelConfig read = read_config(given.path);
  const EngineOptions options = decided(given, read);
  return assemble(
      read, options, std::move(hooks),
      [&](Backend& backend, const ModelConfig& config, const WeightHooks& more) {
        return load_weights(backend, options.path, config, *options.weights, more);
      },
      beside);
}

std::unique_ptr<Model> load_draft(const EngineOptions& target, WeightHooks hooks) {
  if (target.draft.path.empty()) return nullptr;
  const auto require = [](const std::string& path, Decoding decoding, const std::string& allowed) {
    const ModelConfig config = read_config(path);
    if (config.decoding != decoding)
      throw Error(code::kInvalidOption,
                  "draft: " + path + " has model_type \"" + config.model_type + "\"; allowed: " + allowed);
  };
  require(target.path, Decoding::autoregressive, "a draft for an autoregressive model, qwen3 or qwen3_moe");
  require(target.draft.path, Decoding::block_diffusion, "a draft that denoises blocks, sdar or sdar_moe");
  EngineOptions options = target;
  options.path = target.draft.path;
  options.weights = target.draft.weights;
  options.memory_share = 0.25;
  return load_model(options, std::move(hooks));
}

std::unique_ptr<Model> random_model(const ModelConfig& config, const EngineOptions& given, uint64_t seed,
                                    WeightHooks hooks) {
  const EngineOptions options = decided(given, config);
  return assemble(config, options, std::move(hooks),
                  [&](Backend& backend, const ModelConfig& kept, const WeightHooks& more) {
                    return random_weights(backend, kept, *options.weights, seed, more);
                  });
}

}  // namespace sdar
