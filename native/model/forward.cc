#include "model/forward.h"

namespace sdar {

void forward(Ops& ops, const ModelWeights& weights, int32_t rows, bool with_lm_head) {
  const StepBuffers& a = ops.buffers();
  ops.embed({.table = weights.embedding.get(), .x = a.x});
  for (size_t i = 0; i < weights.layers.size(); i++) {
    const LayerWeights& layer = weights.layers[i];
    ops.norm_linear({.x = a.x, .m = rows, .norm = layer.input_norm.get(), .weight = layer.qkv.get(), .out = a.qkv});
    ops.attention({.layer = static_cast<int32_t>(i),
                   .qkv = a.qkv,
                   .out = a.attended,
                   .q_norm = layer.q_norm.get(),
                   .k_norm = layer.k_norm.get(),
                   .q_bias = layer.q_bias.get(),
                   .k_bias = layer.k_bias.get(),
                   .v_bias = layer.v_bias.get()});
    ops.linear_add({.in = a.attended, .m = rows, .weight = layer.o.get(), .bias = layer.o_bias.get(), .x = a.x});
    if (layer.router) {
      ops.moe({.x = a.x,
               .m = rows,
               .norm = layer.post_norm.get(),
               .router = layer.router.get(),
               .gate_up = layer.expert_gate_up_views,
               .down = layer.expert_down_views,
               .top_k = weights.experts_per_token,
               .renormalise = weights.norm_topk_prob});
    } else {
      ops.norm_linear(
          {.x = a.x, .m = rows, .norm = layer.post_norm.get(), .weight = layer.gate_up.get(), .out = a.mlp});
      ops.linear_add({.in = a.mlp, .m = rows, .weight = layer.down.get(), .x = a.x});
    }
  }
  if (!with_lm_head) return;
  const Weight* lm_head = weights.lm_head ? weights.lm_head.get() : weights.embedding.get();
  ops.lm_head({.x = a.x, .norm = weights.final_norm.get(), .weight = lm_head});
}

}  // namespace sdar
