#include "train/lora.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "denoise/philox.h"
#include "util/error.h"
#include "util/half.h"

namespace sdar::train {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr uint64_t kHashKey = 0x6c6f7261;  // fixed: hashes are kept in training states

[[noreturn]] void refuse(const std::string& what, const std::string& allowed) {
  throw Error(code::kInvalidOption, what + "; allowed: " + allowed);
}

bool is_target(const LoraSettings& settings, const std::string& name) {
  if (in_mixture(name)) return false;
  return std::any_of(settings.targets.begin(), settings.targets.end(), [&](LoraTarget target) {
    return name.ends_with("." + std::string(kLoraTargets[static_cast<size_t>(target)]) + "_proj.weight");
  });
}

std::string stem(const std::string& weight) { return weight.substr(0, weight.size() - std::string("weight").size()); }

}  // namespace

void LoraSettings::check(const ModelConfig& config) const {
  const ModelShape& s = config.shape;
  if (rank < 1 || rank > s.hidden)
    refuse("rank is " + std::to_string(rank), "1 to hidden_size, " + std::to_string(s.hidden));
  if (!(alpha > 0 && alpha <= 1e6)) refuse("alpha is " + std::to_string(alpha), "above 0, at most 1000000");
  if (frozen == DType::f16) refuse("frozen is f16", "f32, bf16");
  if (targets.empty() && tensors.empty() && embedding_rows.empty())
    refuse("targets: none", "at least one of q, k, v, o, gate, up, down, or tensors that are trained whole");
  for (const LoraTarget target : targets)
    if (std::count(targets.begin(), targets.end(), target) > 1)
      refuse(std::string("targets: ") + kLoraTargets[static_cast<size_t>(target)] + " twice", "each once");
  const bool dense = std::find(config.sparse.begin(), config.sparse.end(), false) != config.sparse.end();
  for (const LoraTarget target : targets)
    if (target >= LoraTarget::gate && !dense)
      refuse(std::string("targets: ") + kLoraTargets[static_cast<size_t>(target)] + " of a model without dense layers",
             "q, k, v, o");
  const Layout layout(config);
  for (const std::string& name : tensors) {
    if (!layout.has(name) || in_mixture(name))
      refuse("tensors: " + name, "names of the checkpoint's tensors, outside its mixtures of experts");
    if (std::count(tensors.begin(), tensors.end(), name) > 1) refuse("tensors: " + name + " twice", "each once");
    for (const LoraTarget target : targets)
      if (name.ends_with("." + std::string(kLoraTargets[static_cast<size_t>(target)]) + "_proj.weight"))
        refuse("tensors: " + name + ", which has an adapter", "tensors that are no targets");
    if (name == kEmbedding && !embedding_rows.empty())
      refuse("embedding rows: with " + name + " trained whole", "either");
  }
  for (const int32_t id : embedding_rows)
    if (id < 0 || id >= s.vocabulary || std::count(embedding_rows.begin(), embedding_rows.end(), id) > 1)
      refuse("embedding rows: " + std::to_string(id), "0 to " + std::to_string(s.vocabulary - 1) + ", each once");
}

std::string LoraSettings::text() const {
  char number[32];
  std::snprintf(number, sizeof number, "%.17g", alpha);
  std::string text = "lora rank " + std::to_string(rank) + " alpha " + number + " targets";
  for (const LoraTarget target : targets) text += std::string(" ") + kLoraTargets[static_cast<size_t>(target)];
  text += " tensors";
  for (const std::string& name : tensors) text += " " + name;
  text += " rows";
  for (const int32_t id : embedding_rows) text += " " + std::to_string(id);
  return text + " frozen " + (frozen == DType::f32 ? "f32" : "bf16") + " seed " + std::to_string(seed);
}

Layout lora_layout(const ModelConfig& config, const LoraSettings& settings) {
  settings.check(config);
  const auto& whole = settings.tensors;
  const int64_t rank = settings.rank;
  const Layout full(config);
  Layout layout;
  for (const Parameter& tensor : full.parameters()) {
    if (std::find(whole.begin(), whole.end(), tensor.name) != whole.end()) layout.add(tensor);
    if (is_target(settings, tensor.name)) {
      layout.add({stem(tensor.name) + kLoraA, rank, tensor.cols});
      layout.add({stem(tensor.name) + kLoraB, tensor.rows, rank});
    }
    if (tensor.name == kEmbedding && !settings.embedding_rows.empty())
      layout.add({kEmbeddingRows, static_cast<int64_t>(settings.embedding_rows.size()), tensor.cols});
  }
  return layout;
}

Adaptation::Adaptation(const ModelConfig& config, const LoraSettings& settings)
    : config_(config),
      settings_(settings),
      full_(config),
      layout_(lora_layout(config, settings)),
      initial_(static_cast<size_t>(layout_.size())) {}

Adaptation::Adaptation(const ModelConfig& config, const LoraSettings& settings, std::span<const float> weights)
    : Adaptation(config, settings) {
  if (static_cast<int64_t>(weights.size()) != full_.size())
    throw Error(code::kInvalidOption,
                "weights: " + std::to_string(weights.size()) + " of " + std::to_string(full_.size()));
  for (const Parameter& tensor : full_.parameters()) hold(tensor, weights.data() + tensor.offset);
}

Adaptation::Adaptation(const ModelConfig& config, const LoraSettings& settings, const std::string& folder,
                       const std::function<void()>& check)
    : Adaptation(config, settings) {
  visit_parameters(folder, config, [&](const Parameter& tensor, const float* values) {
    check();
    hold(tensor, values);
  });
}

void Adaptation::hold(const Parameter& tensor, const float* values) {
  const int64_t n = tensor.elements();
  hashes_ += hash_bytes(std::as_bytes(std::span(values, static_cast<size_t>(n))), kHashKey).hex();
  if (is_target(settings_, tensor.name)) {
    const Parameter a{stem(tensor.name) + kLoraA, rank(), tensor.cols};
    float* to = initial_.data() + layout_.offset(a.name);
    const Hash name = hash_text(a.name, kHashKey);
    const double bound = 1 / std::sqrt(static_cast<double>(tensor.cols));
    for (int64_t i = 0; i < a.elements(); i++) {
      const PhiloxWords words = philox4x32_10({{static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32),
                                                static_cast<uint32_t>(name.low), static_cast<uint32_t>(name.high)}},
                                              settings_.seed);
      to[i] = static_cast<float>((words.w[0] * 0x1p-31 - 1) * bound);
    }
  }
  if (tensor.name == kEmbedding)
    for (size_t r = 0; r < settings_.embedding_rows.size(); r++)
      std::copy_n(values + settings_.embedding_rows[r] * tensor.cols, tensor.cols,
                  initial_.begin() + layout_.offset(kEmbeddingRows) + static_cast<int64_t>(r) * tensor.cols);
  if (layout_.has(tensor.name)) {
    std::copy_n(values, n, initial_.begin() + layout_.offset(tensor.name));
  } else if (settings_.frozen == DType::bf16 && tensor.in_layer()) {
    frozen_places_[tensor.name] = {Place::frozen_bf16, static_cast<int64_t>(bf16_.size())};
    for (int64_t i = 0; i < n; i++) bf16_.push_back(f32_to_bf16(values[i]));
  } else {
    frozen_places_[tensor.name] = {Place::frozen, static_cast<int64_t>(frozen_.size())};
    frozen_.insert(frozen_.end(), values, values + n);
  }
}

std::string Adaptation::text() const {
  return settings_.text() + " frozen weights " + hash_text(hashes_, kHashKey).hex();
}

Place Adaptation::place(const std::string& name) const {
  if (layout_.has(name)) return {Place::trained, layout_.offset(name)};
  const auto found = frozen_places_.find(name);
  return found == frozen_places_.end() ? Place{} : found->second;
}

void Adaptation::begin(const float* trained) {
  if (!layout_.has(kEmbeddingRows)) return;
  const int64_t width = config_.shape.hidden;
  for (size_t r = 0; r < settings_.embedding_rows.size(); r++)
    std::copy_n(trained + layout_.offset(kEmbeddingRows) + static_cast<int64_t>(r) * width, width,
                frozen_.begin() + place(kEmbedding).offset + settings_.embedding_rows[r] * width);
}

void Adaptation::merge(Compute& compute, const Parameter& tensor, const float* trained, float* to) const {
  const int64_t n = tensor.elements();
  const Place at = place(tensor.name);
  if (at.kind == Place::trained) std::copy_n(trained + at.offset, n, to);
  if (at.kind == Place::frozen) std::copy_n(frozen_.begin() + at.offset, n, to);
  if (at.kind == Place::frozen_bf16)
    for (int64_t i = 0; i < n; i++) to[i] = bf16_to_f32(bf16_[static_cast<size_t>(at.offset + i)]);
  if (tensor.name == kEmbedding)
    for (size_t r = 0; r < settings_.embedding_rows.size(); r++)
      std::copy_n(trained + layout_.offset(kEmbeddingRows) + static_cast<int64_t>(r) * tensor.cols, tensor.cols,
                  to + settings_.embedding_rows[r] * tensor.cols);
  if (!is_target(settings_, tensor.name)) return;
  const float *a = trained + layout_.offset(stem(tensor.name) + kLoraA),
              *b = trained + layout_.offset(stem(tensor.name) + kLoraB);
  // In f32, whatever format the products of training are of.
  compute.split(tensor.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* row = to + i * tensor.cols;
      for (int64_t r = 0; r < rank(); r++) {
        const float factor = scale() * b[i * rank() + r];
        for (int64_t j = 0; j < tensor.cols; j++) row[j] += factor * a[r * tensor.cols + j];
      }
    }
  });
}

}  // namespace sdar::train
