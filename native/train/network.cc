#include "train/network.h"

#include <string>

#include "backend/rope.h"
#include "util/error.h"

namespace sdar::train {

Network::Network(const ModelConfig& config, Compute& compute, Activations activations)
    : config_(config),
      compute_(compute),
      activations_(activations),
      layout_(config),
      embedding_(layout_.offset("model.embed_tokens.weight")),
      final_norm_(layout_.offset("model.norm.weight")),
      head_(config.tied ? embedding_ : layout_.offset("lm_head.weight")),
      frequencies_(inverse_frequencies(config.shape)) {
  const auto mlp = [&](const std::string& prefix) {
    return MlpOffsets{layout_.offset(prefix + "gate_proj.weight"), layout_.offset(prefix + "up_proj.weight"),
                      layout_.offset(prefix + "down_proj.weight")};
  };
  for (int32_t i = 0; i < config.shape.layers; i++) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto at = [&](const char* name) { return layout_.offset(prefix + name + ".weight"); };
    LayerOffsets layer{at("input_layernorm"),
                       at("self_attn.q_proj"),
                       at("self_attn.k_proj"),
                       at("self_attn.v_proj"),
                       at("self_attn.q_norm"),
                       at("self_attn.k_norm"),
                       at("self_attn.o_proj"),
                       at("post_attention_layernorm"),
                       config.sparse[static_cast<size_t>(i)],
                       {},
                       {}};
    if (layer.sparse) {
      layer.moe.router = at("mlp.gate");
      for (int32_t e = 0; e < config.shape.experts; e++)
        layer.moe.experts.push_back(mlp(prefix + "mlp.experts." + std::to_string(e) + "."));
    } else {
      layer.mlp = mlp(prefix + "mlp.");
    }
    layers_.push_back(std::move(layer));
  }
  states_.resize(activations == Activations::keep ? layers_.size() : 1);
  inputs_.resize(layers_.size() + 1);
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

void Network::layer(const float* w, const TrainingRows& rows, const LayerOffsets& at, const float* in, LayerState& s,
                    float* out) {
  const ModelShape& shape = config_.shape;
  const int64_t m = rows.size(), hidden = shape.hidden, dim = shape.head_dim, inner = shape.intermediate;
  const int64_t queries = dim * shape.heads, keys = dim * shape.kv_heads;
  const OperandOut n1 = compute_.operands(s.n1, m * hidden), q = compute_.operands(s.q, m * queries);
  const OperandOut k = compute_.operands(s.k, m * keys), v = compute_.operands(s.v, m * keys);
  float *q_raw = grown(s.q_raw, m * queries), *k_raw = grown(s.k_raw, m * keys);
  rms_norm(compute_, in, m, hidden, w + at.input_norm, shape.rms_eps, n1, grown(s.factor1, m));
  linear_operand(compute_, n1, m, hidden, keys, w + at.v, v, k_raw);
  linear(compute_, n1, m, hidden, queries, w + at.q, q_raw);
  linear(compute_, n1, m, hidden, keys, w + at.k, k_raw);
  norm_rope(compute_, q_raw, m, shape.heads, dim, w + at.q_norm, shape.rms_eps, angles(), q,
            grown(s.q_factor, m * shape.heads));
  norm_rope(compute_, k_raw, m, shape.kv_heads, dim, w + at.k_norm, shape.rms_eps, angles(), k,
            grown(s.k_factor, m * shape.kv_heads));
  attention(compute_, rows, {shape.heads, shape.kv_heads, shape.head_dim}, q, k, v, grown(s.o, m * queries),
            grown(s.logsumexp, m * shape.heads));
  float* middle = grown(s.middle, m * hidden);
  linear(compute_, s.o.data(), m, queries, hidden, w + at.o, middle, in);

  const OperandOut n2 = compute_.operands(s.n2, m * hidden);
  rms_norm(compute_, middle, m, hidden, w + at.post_norm, shape.rms_eps, n2, grown(s.factor2, m));
  if (at.sparse) return moe(compute_, shape, config_.norm_topk_prob, at.moe, w, n2, m, s.moe, middle, out);
  const OperandOut act = compute_.operands(s.act, m * inner);
  linear(compute_, n2, m, hidden, inner, w + at.mlp.gate, grown(s.gate, m * inner));
  linear(compute_, n2, m, hidden, inner, w + at.mlp.up, grown(s.up, m * inner));
  silu_mul(compute_, s.gate.data(), s.up.data(), act, m * inner);
  if (out) linear(compute_, act, m, inner, hidden, w + at.mlp.down, out, middle);
}

void Network::layer_backward(const float* w, const TrainingRows& rows, const LayerOffsets& at, const float* in,
                             LayerState& s, float* g) {
  const ModelShape& shape = config_.shape;
  const int64_t m = rows.size(), hidden = shape.hidden, dim = shape.head_dim, inner = shape.intermediate;
  const int64_t queries = dim * shape.heads, keys = dim * shape.kv_heads;
  const Operand n1 = operand(s.n1), n2 = operand(s.n2);
  float *dx = dx_.data(), *dn = grown(dn_, m * hidden);
  if (at.sparse) {
    moe_backward(compute_, shape, config_.norm_topk_prob, at.moe, w, n2, m, s.moe, dx, dn, g);
  } else {
    const bool in_place = compute_.format() == Format::f32;
    float *d_act = grown(d_act_, m * inner), *gate = s.gate.data(), *up = s.up.data();
    const OperandOut d_gate = in_place ? gate : compute_.operands(d_gate_, m * inner);
    const OperandOut d_up = in_place ? up : compute_.operands(d_up_, m * inner);
    linear_backward(compute_, operand(s.act), dx, m, inner, hidden, w + at.mlp.down, d_act, false, g + at.mlp.down);
    silu_mul_backward(compute_, gate, up, d_act, d_gate, d_up, m * inner);
    linear_backward(compute_, n2, d_gate, m, hidden, inner, w + at.mlp.gate, dn, false, g + at.mlp.gate);
    linear_backward(compute_, n2, d_up, m, hidden, inner, w + at.mlp.up, dn, true, g + at.mlp.up);
  }
  rms_norm_backward(compute_, s.middle.data(), s.factor2.data(), dn, m, hidden, w + at.post_norm, dx, true,
                    g + at.post_norm);

  float *d_o = grown(d_o_, m * queries), *dq = grown(dq_, m * queries), *dk = grown(dk_, m * keys);
  float* dv = grown(dv_, m * keys);
  const OperandOut raw = compute_.operands(d_raw_, m * queries);
  linear_backward(compute_, s.o.data(), dx, m, queries, hidden, w + at.o, d_o, false, g + at.o);
  attention_backward(compute_, rows, {shape.heads, shape.kv_heads, shape.head_dim}, operand(s.q), operand(s.k),
                     operand(s.v), s.o.data(), s.logsumexp.data(), d_o, dq, dk, dv);
  norm_rope_backward(compute_, s.q_raw.data(), s.q_factor.data(), dq, m, shape.heads, dim, w + at.q_norm, angles(), raw,
                     g + at.q_norm);
  linear_backward(compute_, n1, raw, m, hidden, queries, w + at.q, dn, false, g + at.q);
  norm_rope_backward(compute_, s.k_raw.data(), s.k_factor.data(), dk, m, shape.kv_heads, dim, w + at.k_norm, angles(),
                     raw, g + at.k_norm);
  linear_backward(compute_, n1, raw, m, hidden, keys, w + at.k, dn, true, g + at.k);
  linear_backward(compute_, n1, dv, m, hidden, keys, w + at.v, dn, true, g + at.v);
  rms_norm_backward(compute_, in, s.factor1.data(), dn, m, hidden, w + at.input_norm, dx, true, g + at.input_norm);
}

void Network::forward(const float* w, const TrainingRows& rows, bool keep) {
  start(rows);
  const int64_t m = rows.size(), hidden = config_.shape.hidden;
  for (Buffer& one : inputs_) grown(one, m * hidden);
  embed(compute_, rows.ids.data(), m, hidden, w + embedding_, inputs_[0].data());
  for (size_t i = 0; i < layers_.size(); i++)
    layer(w, rows, layers_[i], inputs_[i].data(), states_[keep ? i : 0], inputs_[i + 1].data());
  rms_norm(compute_, inputs_.back().data(), m, hidden, w + final_norm_, config_.shape.rms_eps,
           compute_.operands(n_, m * hidden), grown(factor_, m));
}

double Network::loss(const float* w, const TrainingRows& rows) {
  forward(w, rows, false);
  return head_loss(compute_, rows, operand(n_), config_.shape.hidden, w + head_, config_.shape.vocabulary);
}

double Network::loss_and_gradients(const float* w, const TrainingRows& rows, float* g) {
  const bool keep = activations_ == Activations::keep;
  forward(w, rows, keep);
  const int64_t m = rows.size(), hidden = config_.shape.hidden;
  float *dn = grown(dn_, m * hidden), *dx = grown(dx_, m * hidden);
  const double loss =
      head_loss(compute_, rows, operand(n_), hidden, w + head_, config_.shape.vocabulary, dn, g + head_);
  rms_norm_backward(compute_, inputs_.back().data(), factor_.data(), dn, m, hidden, w + final_norm_, dx, false,
                    g + final_norm_);
  for (size_t i = layers_.size(); i-- > 0;) {
    LayerState& state = states_[keep ? i : 0];
    // The last layer's activations are still those of the forward pass.
    if (!keep && i + 1 < layers_.size()) layer(w, rows, layers_[i], inputs_[i].data(), state, nullptr);
    layer_backward(w, rows, layers_[i], inputs_[i].data(), state, g);
  }
  embed_backward(compute_, rows.ids.data(), m, hidden, dx, g + embedding_);
  return loss;
}

}  // namespace sdar::train
