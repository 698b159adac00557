// Makes a Model: the one place that knows which backends exist.
#include <algorithm>

#include "backend/cpu/cpu.h"
#include "engine/bench.h"
#include "engine/engine.h"
#include "util/error.h"
#include "util/memory.h"

namespace sdar {

namespace {

std::unique_ptr<Backend> make_backend(const EngineOptions& options) {
  if (options.device == "auto" || options.device == "cpu")
    return cpu::make_backend({.threads = options.threads, .isa = options.isa});
  throw Error(code::kUnsupportedDevice, "device \"" + options.device + "\" is not available; allowed: auto, cpu");
}

/// Pages are committed by the operating system only when they are first written, so a generous default costs nothing.
int64_t cache_pages(const EngineOptions& options, int32_t context, size_t page_bytes) {
  const auto pages = [](int64_t tokens) { return (tokens + kPageSlots - 1) / kPageSlots; };
  int64_t count;
  if (options.kv_tokens > 0) {
    count = pages(options.kv_tokens);
  } else if (options.kv_bytes > 0) {
    count = options.kv_bytes / static_cast<int64_t>(page_bytes);
  } else {
    const int64_t affordable = available_memory() / 4 / static_cast<int64_t>(page_bytes);
    // Blocks need not fill a page (length 33 leaves half empty), hence twice the context for the one sequence that must
    // fit.
    const int64_t least = 2 * pages(context);
    count = std::clamp(affordable, least, std::max(least, pages(context) * options.max_concurrent));
  }
  if (count < 1)
    throw Error(code::kCacheTooSmall, "kvCache holds less than one page of " + std::to_string(kPageSlots) +
                                          " tokens (" + std::to_string(page_bytes) + " bytes for this model)");
  return std::min<int64_t>(count, INT32_MAX);
}

/// A model of `config`; `make(backend, hooks)` gives its weights.
template <class MakeWeights>
std::unique_ptr<Model> assemble(ModelConfig config, const EngineOptions& options, WeightHooks hooks,
                                const MakeWeights& make) {
  auto model = std::make_unique<Model>();
  model->config = std::move(config);
  model->backend = make_backend(options);
  model->format = options.weights;
  hooks.threads = model->backend->threads();
  hooks.cache_folder = options.cache_folder;
  model->weights = make(*model->backend, model->config, hooks);
  const ModelShape& shape = model->config.shape;
  const KvFormat format =
      options.kv_format.value_or(options.weights == WeightFormat::f32 ? KvFormat::f32 : KvFormat::bf16);
  model->page_bytes = model->backend->page_bytes(shape, format);
  model->cache = {.pages = cache_pages(options, shape.context, model->page_bytes), .format = format};
  model->backend->configure(shape, model->cache, options.max_rows);
  model->forward = std::make_unique<Forward>(*model->backend, model->config, model->weights, options.max_rows);
  return model;
}

}  // namespace

std::unique_ptr<Model> load_model(const EngineOptions& options, WeightHooks hooks) {
  return assemble(read_config(options.path), options, std::move(hooks),
                  [&](Backend& backend, const ModelConfig& config, const WeightHooks& more) {
                    return load_weights(backend, options.path, config, options.weights, more);
                  });
}

std::unique_ptr<Model> random_model(const ModelConfig& config, const EngineOptions& options, uint64_t seed,
                                    WeightHooks hooks) {
  return assemble(config, options, std::move(hooks),
                  [&](Backend& backend, const ModelConfig& kept, const WeightHooks& more) {
                    return random_weights(backend, kept, options.weights, seed, more);
                  });
}

std::unique_ptr<LimitProbe> make_limit_probe(const Backend& backend) {
  return cpu::make_limit_probe(backend.threads(), backend.isa());
}

}  // namespace sdar
