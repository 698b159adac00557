#include "train/network.h"

#include <string>

#include "backend/rope.h"
#include "util/error.h"

namespace sdar::train {

Network::Network(const ModelConfig& config, Compute& compute, Activations activations)
    : Network(config, nullptr, compute, activations) {}
Network::Network(Adaptation& adaptation, Compute& compute, Activations activations)
    : Network(adaptation.config(), &adaptation, compute, activations) {}

Network::Network(const ModelConfig& config, Adaptation* adaptation, Compute& compute, Activations activations)
    : config_(config),
      compute_(compute),
      activations_(activations),
      adaptation_(adaptation),
      layout_(adaptation ? Layout() : Layout(config)),
      tensors_(compute, adaptation),
      embedding_(place("model.embed_tokens.weight")),
      final_norm_(place("model.norm.weight")),
      head_(config.tied ? embedding_ : place("lm_head.weight")),
      rows_(place(kEmbeddingRows)),
      frequencies_(inverse_frequencies(config.shape)) {
  const ModelShape& s = config.shape;
  const int64_t hidden = s.hidden, queries = int64_t{s.heads} * s.head_dim, keys = int64_t{s.kv_heads} * s.head_dim;
  for (int32_t i = 0; i < s.layers; i++) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".", attention = prefix + "self_attn.";
    Layer layer{.input_norm = place(prefix + "input_layernorm.weight"),
                .q_norm = place(attention + "q_norm.weight"),
                .k_norm = place(attention + "k_norm.weight"),
                .post_norm = place(prefix + "post_attention_layernorm.weight"),
                .q = projection(attention + "q_proj.", hidden, queries),
                .k = projection(attention + "k_proj.", hidden, keys),
                .v = projection(attention + "v_proj.", hidden, keys),
                .o = projection(attention + "o_proj.", queries, hidden),
                .gate = projection(prefix + "mlp.gate_proj.", hidden, s.intermediate),
                .up = projection(prefix + "mlp.up_proj.", hidden, s.intermediate),
                .down = projection(prefix + "mlp.down_proj.", s.intermediate, hidden),
                .sparse = config.sparse[static_cast<size_t>(i)],
                .moe_begin = {},
                .moe = {},
                .moe_size = 0};
    if (layer.sparse) find_moe(prefix + "mlp.", layer);
    layers_.push_back(std::move(layer));
  }
  states_.resize(activations == Activations::keep ? layers_.size() : 1);
  inputs_.resize(layers_.size() + 1);
}

Place Network::place(const std::string& name) const {
  if (adaptation_) return adaptation_->place(name);
  return layout_.has(name) ? Place{Place::trained, layout_.offset(name)} : Place{};
}

Projection Network::projection(const std::string& name, int64_t in, int64_t out) const {
  return {.in = in,
          .out = out,
          .weight = place(name + "weight"),
          .bias = place(name + "bias"),
          .a = place(name + kLoraA),
          .b = place(name + kLoraB)};
}

void Network::find_moe(const std::string& prefix, Layer& layer) const {
  layer.moe_begin = place(prefix + "gate.weight");
  const auto offset = [&](const std::string& name) { return place(prefix + name).offset - layer.moe_begin.offset; };
  for (int32_t e = 0; e < config_.shape.experts; e++) {
    const std::string expert = "experts." + std::to_string(e) + ".";
    layer.moe.experts.push_back(
        {offset(expert + "gate_proj.weight"), offset(expert + "up_proj.weight"), offset(expert + "down_proj.weight")});
  }
  const int64_t matrix = int64_t{config_.shape.hidden} * config_.shape.moe_intermediate;
  layer.moe_size = (3 * matrix + config_.shape.hidden) * config_.shape.experts;
}

void Network::check(const TrainingRows& rows) const {
  const ModelShape& s = config_.shape;
  const auto id_in_range = [&](int32_t id, const char* what, size_t row) {
    if (id < 0 || id >= s.vocabulary)
      throw Error(code::kTokenOutOfRange, std::string(what) + " of row " + std::to_string(row) + " is " +
                                              std::to_string(id) + "; allowed: 0 to " +
                                              std::to_string(s.vocabulary - 1));
  };
  size_t row = 0;
  for (const Span& sample : rows.samples) {
    for (; row < static_cast<size_t>(sample.end); row++) {
      id_in_range(rows.ids[row], "id", row);
      if (rows.weights[row] != 0) id_in_range(rows.targets[row], "target", row);
      if (rows.positions[row] < 0 || rows.positions[row] >= s.context)
        throw Error(code::kPromptTooLong, "position " + std::to_string(rows.positions[row]) + " of row " +
                                              std::to_string(row) + "; allowed: below max_position_embeddings, " +
                                              std::to_string(s.context));
      int64_t seen = 0;
      for (const Span& part : rows.sight[row].parts) {
        if (part.begin == part.end) continue;
        if (part.begin < sample.begin || part.end > sample.end || part.begin > part.end)
          throw Error(code::kInvalidOption, "row " + std::to_string(row) + " sees rows outside its sample");
        seen += part.end - part.begin;
      }
      if (seen == 0 || seen > sample.end - sample.begin)
        throw Error(code::kInvalidOption, "row " + std::to_string(row) + " sees " + std::to_string(seen) +
                                              " rows; allowed: 1 to its sample's " +
                                              std::to_string(sample.end - sample.begin));
    }
  }
  if (rows.ids.empty() || row != rows.ids.size())
    throw Error(code::kInvalidOption, "samples hold " + std::to_string(row) + " of " + std::to_string(rows.ids.size()) +
                                          " rows; allowed: all, and at least one");
}

void Network::start(const TrainingRows& rows) {
  check(rows);
  const int64_t half = static_cast<int64_t>(frequencies_.size());
  float *cos = grown(cos_, rows.size() * half), *sin = grown(sin_, rows.size() * half);
  const auto factor = static_cast<float>(config_.shape.rope_scaling.attention_factor);
  compute_.split(rows.size(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      for (int64_t d = 0; d < half; d++) {
        const Rotation r =
            rotation(frequencies_[static_cast<size_t>(d)], rows.positions[static_cast<size_t>(i)], factor);
        cos[i * half + d] = r.cos;
        sin[i * half + d] = r.sin;
      }
    }
  });
}

void Network::norm(const Place& weight, const float* x, int64_t m, const OperandOut& y, float* factor) {
  const int64_t hidden = config_.shape.hidden;
  rms_norm(compute_, x, m, hidden, tensors_.at(weight, hidden), config_.shape.rms_eps, y, factor);
}
void Network::norm_backward(const Place& weight, const float* x, const float* factor, const float* dy, int64_t m,
                            float* dx, bool add) {
  const int64_t hidden = config_.shape.hidden;
  rms_norm_backward(compute_, x, factor, dy, m, hidden, tensors_.at(weight, hidden), dx, add,
                    tensors_.gradient(weight));
}

void Network::layer(const TrainingRows& rows, const Layer& at, const float* in, LayerState& s, float* out) {
  const ModelShape& shape = config_.shape;
  const int64_t m = rows.size(), hidden = shape.hidden, dim = shape.head_dim, inner = shape.intermediate;
  const int64_t queries = dim * shape.heads, keys = dim * shape.kv_heads;
  const OperandOut n1 = compute_.operands(s.n1, m * hidden), q = compute_.operands(s.q, m * queries);
  const OperandOut k = compute_.operands(s.k, m * keys), v = compute_.operands(s.v, m * keys);
  float *q_raw = grown(s.q_raw, m * queries), *k_raw = grown(s.k_raw, m * keys);
  norm(at.input_norm, in, m, n1, grown(s.factor1, m));
  tensors_.project_operand(at.v, n1, m, v, k_raw);
  tensors_.project(at.q, n1, m, q_raw);
  tensors_.project(at.k, n1, m, k_raw);
  norm_rope(compute_, q_raw, m, shape.heads, dim, tensors_.at(at.q_norm, dim), shape.rms_eps, angles(), q,
            grown(s.q_factor, m * shape.heads));
  norm_rope(compute_, k_raw, m, shape.kv_heads, dim, tensors_.at(at.k_norm, dim), shape.rms_eps, angles(), k,
            grown(s.k_factor, m * shape.kv_heads));
  attention(compute_, rows, {shape.heads, shape.kv_heads, shape.head_dim}, q, k, v, grown(s.o, m * queries),
            grown(s.logsumexp, m * shape.heads));
  float* middle = grown(s.middle, m * hidden);
  tensors_.project(at.o, s.o.data(), m, middle, in);

  const OperandOut n2 = compute_.operands(s.n2, m * hidden);
  norm(at.post_norm, middle, m, n2, grown(s.factor2, m));
  if (at.sparse)
    return moe(compute_, shape, config_.norm_topk_prob, at.moe, tensors_.at(at.moe_begin, at.moe_size), n2, m, s.moe,
               middle, out);
  const OperandOut act = compute_.operands(s.act, m * inner);
  tensors_.project(at.gate, n2, m, grown(s.gate, m * inner));
  tensors_.project(at.up, n2, m, grown(s.up, m * inner));
  silu_mul(compute_, s.gate.data(), s.up.data(), act, m * inner);
  if (out) tensors_.project(at.down, act, m, out, middle);
}

void Network::layer_backward(const TrainingRows& rows, const Layer& at, const float* in, LayerState& s) {
  const ModelShape& shape = config_.shape;
  const int64_t m = rows.size(), hidden = shape.hidden, dim = shape.head_dim, inner = shape.intermediate;
  const int64_t queries = dim * shape.heads, keys = dim * shape.kv_heads;
  const Operand n1 = operand(s.n1), n2 = operand(s.n2);
  float *dx = dx_.data(), *dn = grown(dn_, m * hidden);
  if (at.sparse) {
    moe_backward(compute_, shape, config_.norm_topk_prob, at.moe, tensors_.at(at.moe_begin, at.moe_size), n2, m, s.moe,
                 dx, dn, tensors_.gradient(at.moe_begin));
  } else {
    const bool in_place = compute_.format() == Format::f32;
    float *d_act = grown(d_act_, m * inner), *gate = s.gate.data(), *up = s.up.data();
    const OperandOut d_gate = in_place ? gate : compute_.operands(d_gate_, m * inner);
    const OperandOut d_up = in_place ? up : compute_.operands(d_up_, m * inner);
    tensors_.project_backward(at.down, operand(s.act), dx, m, d_act, false);
    silu_mul_backward(compute_, gate, up, d_act, d_gate, d_up, m * inner);
    tensors_.project_backward(at.gate, n2, d_gate, m, dn, false);
    tensors_.project_backward(at.up, n2, d_up, m, dn, true);
  }
  norm_backward(at.post_norm, s.middle.data(), s.factor2.data(), dn, m, dx, true);

  float *d_o = grown(d_o_, m * queries), *dq = grown(dq_, m * queries), *dk = grown(dk_, m * keys);
  float* dv = grown(dv_, m * keys);
  const OperandOut raw = compute_.operands(d_raw_, m * queries);
  tensors_.project_backward(at.o, s.o.data(), dx, m, d_o, false);
  attention_backward(compute_, rows, {shape.heads, shape.kv_heads, shape.head_dim}, operand(s.q), operand(s.k),
                     operand(s.v), s.o.data(), s.logsumexp.data(), d_o, dq, dk, dv);
  norm_rope_backward(compute_, s.q_raw.data(), s.q_factor.data(), dq, m, shape.heads, dim, tensors_.at(at.q_norm, dim),
                     angles(), raw, tensors_.gradient(at.q_norm));
  tensors_.project_backward(at.q, n1, raw, m, dn, false);
  norm_rope_backward(compute_, s.k_raw.data(), s.k_factor.data(), dk, m, shape.kv_heads, dim,
                     tensors_.at(at.k_norm, dim), angles(), raw, tensors_.gradient(at.k_norm));
  tensors_.project_backward(at.k, n1, raw, m, dn, true);
  tensors_.project_backward(at.v, n1, dv, m, dn, true);
  norm_backward(at.input_norm, in, s.factor1.data(), dn, m, dx, true);
}

void Network::forward(const TrainingRows& rows, bool keep) {
  start(rows);
  const int64_t m = rows.size(), hidden = config_.shape.hidden;
  for (Buffer& one : inputs_) grown(one, m * hidden);
  embed(compute_, rows.ids.data(), m, hidden, tensors_.at(embedding_, 0), inputs_[0].data());
  for (size_t i = 0; i < layers_.size(); i++)
    layer(rows, layers_[i], inputs_[i].data(), states_[keep ? i : 0], inputs_[i + 1].data());
  norm(final_norm_, inputs_.back().data(), m, compute_.operands(n_, m * hidden), grown(factor_, m));
}

double Network::loss(const float* w, const TrainingRows& rows) {
  tensors_.begin(w, nullptr);
  forward(rows, false);
  return head_loss(compute_, rows, operand(n_), config_.shape.hidden, tensors_.at(head_, 0), config_.shape.vocabulary);
}

double Network::loss_and_gradients(const float* w, const TrainingRows& rows, float* g) {
  tensors_.begin(w, g);
  const bool keep = activations_ == Activations::keep;
  forward(rows, keep);
  const int64_t m = rows.size(), hidden = config_.shape.hidden;
  float *dn = grown(dn_, m * hidden), *dx = grown(dx_, m * hidden), *d_rows = tensors_.gradient(rows_);
  const std::span<const int32_t> ids =
      d_rows ? std::span(adaptation_->settings().embedding_rows) : std::span<const int32_t>();
  const HeadGradients d_head =
      d_rows && config_.tied ? HeadGradients(ids, d_rows) : HeadGradients(tensors_.gradient(head_));
  const double loss =
      head_loss(compute_, rows, operand(n_), hidden, tensors_.at(head_, 0), config_.shape.vocabulary, dn, d_head);
  norm_backward(final_norm_, inputs_.back().data(), factor_.data(), dn, m, dx, false);
  for (size_t i = layers_.size(); i-- > 0;) {
    LayerState& state = states_[keep ? i : 0];
    // The last layer's activations are still those of the forward pass.
    if (!keep && i + 1 < layers_.size()) layer(rows, layers_[i], inputs_[i].data(), state, nullptr);
    layer_backward(rows, layers_[i], inputs_[i].data(), state);
  }
  if (float* d_table = tensors_.gradient(embedding_)) embed_backward(compute_, rows.ids.data(), m, hidden, dx, d_table);
  for (size_t r = 0; r < ids.size(); r++)
    embed_backward_row(rows.ids.data(), m, hidden, dx, ids[r], d_rows + static_cast<int64_t>(r) * hidden);
  return loss;
}

}  // namespace sdar::train
