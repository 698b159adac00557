#include "train/memory.h"

#include <algorithm>

#include "util/error.h"

namespace sdar::train {
namespace {

constexpr int64_t kFloat = sizeof(float);

/// Floats of Network's buffers for `m` rows.
class Buffers {
 public:
  Buffers(const ModelConfig& config, const Compute& compute, int64_t m)
      : s_(config.shape),
        compute_(compute),
        m_(m),
        queries_(m * s_.heads * s_.head_dim),
        keys_(m * s_.kv_heads * s_.head_dim),
        wide_(m * s_.hidden),
        inner_(m * s_.intermediate),
        slots_(m * s_.experts_per_token),
        half_(compute.format() != Format::f32) {
    for (const bool sparse : config.sparse) (sparse ? sparse_ : dense_)++;
  }

  int64_t states(Activations activations) const {
    if (activations == Activations::keep)
      return s_.layers * attention_state() + dense_ * dense_state() + sparse_ * sparse_state();
    return attention_state() + (dense_ ? dense_state() : 0) + (sparse_ ? sparse_state() : 0);
  }
  /// Of any layer: inputs, angles, gradients.
  int64_t shared() const {
    const int64_t around = (s_.layers + 1) * wide_ + 2 * m_ * (s_.head_dim / 2) + compute_.floats_for(wide_) + m_;
    const int64_t back = 2 * wide_ + 2 * queries_ + 2 * keys_ + compute_.floats_for(queries_);
    const int64_t mlp = dense_ ? inner_ + (half_ ? 2 * compute_.floats_for(inner_) : 0) : 0;
    return around + back + mlp + 8 * m_;  // the rows themselves
  }
  int64_t mixture() const { return sparse_ ? slots_ * (2 * s_.hidden + s_.moe_intermediate + 2) + m_ * s_.experts : 0; }

 private:
  int64_t attention_state() const {
    return 2 * compute_.floats_for(wide_) + wide_ + 2 * m_ + 2 * queries_ + keys_ + compute_.floats_for(queries_) +
           2 * compute_.floats_for(keys_) + m_ * (2 * s_.heads + s_.kv_heads);
  }
  int64_t dense_state() const { return 2 * inner_ + compute_.floats_for(inner_); }
  int64_t sparse_state() const {
    const int64_t in = slots_ * s_.hidden, inner = slots_ * s_.moe_intermediate;
    return m_ * s_.experts + 4 * slots_ + compute_.floats_for(in) + in + 2 * inner + compute_.floats_for(inner);
  }

  const ModelShape& s_;
  const Compute& compute_;
  const int64_t m_, queries_, keys_, wide_, inner_, slots_;
  const bool half_;
  int64_t dense_ = 0, sparse_ = 0;
};

/// Of one update of the largest matrix: it, its successor and two squares.
int64_t muon_floats(const Layout& layout) {
  int64_t most = 0;
  for (const Parameter& p : layout.parameters())
    if (is_muons(p)) most = std::max(most, 2 * p.elements() + 2 * std::min(p.rows, p.cols) * std::min(p.rows, p.cols));
  return most;
}

/// The most that a product with a matrix takes.
ProductScratch products_scratch(const ModelConfig& config, const Compute& compute, int64_t rows) {
  ProductScratch most;
  const auto take = [&](int64_t m, int64_t n, int64_t k) {
    const ProductScratch one = product_scratch(compute, m, n, k);
    most = {std::max(most.shared, one.shared), std::max(most.worker, one.worker)};
  };
  const Layout layout(config);
  for (const Parameter& p : layout.parameters()) {
    const bool table = p.name == "model.embed_tokens.weight";
    if (p.vector || (table && !config.tied)) continue;
    const bool head = table || p.name == "lm_head.weight";
    const int64_t m = head ? std::min(rows, head_tile(config.shape.vocabulary)) : rows;
    take(m, p.rows, p.cols);
    take(m, p.cols, p.rows);
    take(p.rows, p.cols, m);
  }
  return most;
}

}  // namespace

TrainingMemory estimate(const ModelConfig& config, const TrainSettings& settings, const Compute& compute,
                        Activations activations, const BatchSize& batch, const LoraSettings* lora) {
  const Layout full(config), layout = lora ? lora_layout(config, *lora) : full;
  const ModelShape& s = config.shape;
  const Buffers buffers(config, compute, batch.rows);
  TrainingMemory memory{.activations = activations};
  memory.weights = memory.gradients = layout.size() * kFloat;
  memory.moments = (layout.size() + second_moments(layout, settings.optimizer)) * kFloat;
  memory.average = settings.ema > 0 ? memory.weights : 0;
  memory.kept = (buffers.states(activations) + buffers.shared()) * kFloat;
  const int64_t tile = std::min(head_tile(s.vocabulary), batch.rows);
  memory.temporary = std::max(tile * (s.vocabulary + 2 * s.hidden), buffers.mixture()) * kFloat;
  if (settings.optimizer == OptimizerKind::muon)
    memory.temporary = std::max(memory.temporary, muon_floats(layout) * kFloat);
  const ProductScratch products = products_scratch(config, compute, batch.rows);
  int64_t scratch = products.shared + compute.threads() * std::max(products.worker, compute.attention().scratch(
                                                                                        batch.longest, s.head_dim));
  if (lora) {
    int64_t widest = 0, layer = 0;
    for (const Parameter& p : full.parameters()) {
      if (layout.has(p.name)) continue;
      const bool half = lora->frozen == DType::bf16 && p.in_layer();
      memory.frozen += p.elements() * (half ? 2 : kFloat);
      if (!half) continue;
      // Matrices of a mixture are widened together; others where products are of f32.
      const bool mixture = in_mixture(p.name);
      layer = mixture && !p.name.ends_with(".mlp.gate.weight") ? layer + p.elements() : p.elements();
      if (mixture || compute.format() == Format::f32) widest = std::max(widest, layer);
    }
    scratch += widest + 2 * batch.rows * lora->rank;
    memory.weights += layout.size() * kFloat;  // what they were to begin with
  }
  memory.scratch = scratch * kFloat;
  return memory;
}

TrainingMemory fit(const ModelConfig& config, const TrainSettings& settings, const Compute& compute,
                   std::optional<Activations> wanted, const BatchSize& batch, const LoraSettings* lora,
                   int64_t available) {
  TrainingMemory memory = estimate(config, settings, compute, wanted.value_or(Activations::keep), batch, lora);
  if (!wanted && memory.total() > available)
    memory = estimate(config, settings, compute, Activations::recompute, batch, lora);
  if (memory.total() <= available) return memory;
  throw Error(code::kOutOfMemory, "training takes " + std::to_string(memory.total() >> 20) + " MiB (" + memory.text() +
                                      "), this process may use " + std::to_string(available >> 20) +
                                      " MiB: take fewer rows in a batch" + (lora ? "" : ", when adapting LoRA") +
                                      " or a smaller model");
}

std::string TrainingMemory::text() const {
  std::string text;
  const auto add = [&](const char* what, int64_t bytes) {
    if (bytes > 0) text += (text.empty() ? "" : ", ") + std::string(what) + " " + std::to_string(bytes >> 20);
  };
  add("weights", weights);
  add("frozen weights", frozen);
  add("gradients", gradients);
  add("moments", moments);
  add("average", average);
  add(activations == Activations::keep ? "kept activations" : "activations", kept);
  add("temporary", temporary);
  add("scratch", scratch);
  return text;
}

}  // namespace sdar::train
