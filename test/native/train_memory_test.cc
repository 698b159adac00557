// What training is said to take against what it allocates; activations kept where that fits; what does not fit is refused.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "check.h"
#include "train/memory.h"
#include "train/recipe.h"
#include "train_networks.h"

namespace {

std::atomic<int64_t> allocated{0}, most{0};

void* counted(size_t bytes, size_t alignment) {
  const size_t head = std::max<size_t>(alignment, 64);
  auto* begin = static_cast<char*>(std::aligned_alloc(head, (bytes + 2 * head - 1) / head * head));
  if (!begin) throw std::bad_alloc();
  *reinterpret_cast<size_t*>(begin + head - sizeof(size_t)) = bytes;
  const int64_t now = allocated += static_cast<int64_t>(bytes);
  for (int64_t before = most; before < now && !most.compare_exchange_weak(before, now);) continue;
  return begin + head;
}
void release(void* at, size_t alignment) {
  if (!at) return;
  const size_t head = std::max<size_t>(alignment, 64);
  char* begin = static_cast<char*>(at) - head;
  allocated -= static_cast<int64_t>(*reinterpret_cast<size_t*>(begin + head - sizeof(size_t)));
  std::free(begin);
}

}  // namespace

void* operator new(size_t bytes) { return counted(bytes, 64); }
void* operator new(size_t bytes, std::align_val_t alignment) { return counted(bytes, static_cast<size_t>(alignment)); }
void operator delete(void* at) noexcept { release(at, 64); }
void operator delete(void* at, size_t) noexcept { release(at, 64); }
void operator delete(void* at, std::align_val_t alignment) noexcept { release(at, static_cast<size_t>(alignment)); }
void operator delete(void* at, size_t, std::align_val_t alignment) noexcept {
  release(at, static_cast<size_t>(alignment));
}

using namespace sdar;
using namespace sdar::train;

namespace {

ModelConfig config_for(bool tied, int32_t experts, int32_t hidden) {
  ModelConfig config = config_of(tied, experts);
  ModelShape& s = config.shape;
  s.hidden = hidden, s.intermediate = 3 * hidden, s.heads = 4, s.kv_heads = 2, s.head_dim = 32;
  s.vocabulary = 600, s.context = 512, s.moe_intermediate = hidden;
  return config;
}

TrainingRows batch_of(int32_t samples, int32_t length) {
  TrainingRows rows;
  for (int32_t i = 0; i < samples; i++) add_token_causal(rows, ids_of(length, 7));
  for (size_t i = 0; i < rows.weights.size(); i++) rows.weights[i] = 0.01f;
  return rows;
}

void compare(const ModelConfig& config, const TrainSettings& settings, Format format, Activations activations,
             int32_t length, const LoraSettings* lora) {
  const TrainingRows rows = batch_of(4, length);
  Compute compute(2, "", format);
  const TrainingMemory memory = estimate(config, settings, compute, activations, {rows.size(), length}, lora);
  std::vector<float> weights = weights_of(Layout(config));
  const int64_t before = allocated - (lora ? 0 : static_cast<int64_t>(weights.size() * sizeof(float)));
  most = allocated.load();
  std::unique_ptr<Adaptation> adaptation;
  if (lora) adaptation = std::make_unique<Adaptation>(config, *lora, weights);
  std::unique_ptr<Network> network = lora ? std::make_unique<Network>(*adaptation, compute, activations)
                                          : std::make_unique<Network>(config, compute, activations);
  Trainer trainer(*network, compute, settings, lora ? adaptation->initial() : std::move(weights));
  trainer.step([&](uint64_t) { return rows; });
  const auto real = static_cast<double>(most - before), said = static_cast<double>(memory.total());
  CHECK_NEAR(said, real, 0.1 * real);
}

}  // namespace

TEST("what is said is what is allocated, to a tenth") {
  TrainSettings adamw, muon;
  adamw.schedule.steps = muon.schedule.steps = 9;
  adamw.ema = 0.9;
  muon.optimizer = OptimizerKind::muon;
  LoraSettings lora;
  lora.embedding_rows = {3};
  lora.frozen = DType::bf16;
  for (const Activations activations : {Activations::keep, Activations::recompute}) {
    for (const Format format : {Format::f32, Format::bf16}) {
      compare(config_for(true, 0, 192), adamw, format, activations, 120, nullptr);
      compare(config_for(false, 0, 256), muon, format, activations, 25, nullptr);
    }
    compare(config_for(false, 4, 128), adamw, Format::f32, activations, 120, nullptr);
    compare(config_for(true, 0, 256), adamw, Format::f32, activations, 50, &lora);
    compare(config_for(false, 4, 128), adamw, Format::f32, activations, 60, &lora);
  }
}

TEST("activations are kept where that fits; what does not fit is refused by name") {
  Compute compute(2);
  const ModelConfig config = config_for(true, 0, 192);
  const BatchSize batch{480, 120};
  TrainSettings settings;
  const int64_t kept = estimate(config, settings, compute, Activations::keep, batch).total();
  const int64_t again = estimate(config, settings, compute, Activations::recompute, batch).total();
  CHECK(again < kept);
  CHECK(fit(config, settings, compute, {}, batch, nullptr, kept).activations == Activations::keep);
  CHECK(fit(config, settings, compute, {}, batch, nullptr, kept - 1).activations == Activations::recompute);
  CHECK(fit(config, settings, compute, Activations::recompute, batch, nullptr, kept).total() == again);
  CHECK_THROWS("OUT_OF_MEMORY", "moments", fit(config, settings, compute, {}, batch, nullptr, again - 1));
  CHECK_THROWS("OUT_OF_MEMORY", "kept activations",
               fit(config, settings, compute, Activations::keep, batch, nullptr, kept - 1));
  CHECK_THROWS("OUT_OF_MEMORY", "this process may use",
               fit(config, settings, compute, {}, {int64_t{1} << 40, 512}, nullptr));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
