#include "backend/cuda/recorder.h"

#include <algorithm>

namespace sdar::cuda {
namespace {

uint16_t* as_tiles(float* memory) { return reinterpret_cast<uint16_t*>(memory); }
const uint16_t* as_tiles(const float* memory) { return reinterpret_cast<const uint16_t*>(memory); }

}  // namespace

void LaunchRecorder::gather_rows() {
  if (input_.shape().slots == 0) return;
  graph_.begin_kind(&StepSeconds::denoise);
  graph_.add<Kernel::gather_rows>(input_.gather_rows(model_.mask_id, logits_ != nullptr));
}

void LaunchRecorder::select_unmask() {
  if (input_.shape().slots == 0) return;
  graph_.begin_kind(&StepSeconds::denoise);
  graph_.add<Kernel::select_unmask>({input_.denoise_tables(model_.mask_id), input_.results.get()});
}

void LaunchRecorder::embed(const EmbedArgs& args) {
  graph_.begin_kind(&StepSeconds::gemm);
  graph_.add<Kernel::embed>({held(*args.table).matrix, input_.ids.get(), args.x, input_.shape().rows});
}

void LaunchRecorder::rms_norm(const float* x, const Weight& weight, const int32_t* rows, uint16_t* tiles,
                              int32_t tokens) {
  graph_.add<Kernel::rms_norm>({.x = x,
                                .norm = held(weight).values,
                                .rows = rows,
                                .tiles = tiles,
                                .tokens = tokens,
                                .hidden = model_.shape.hidden,
                                .eps = model_.shape.rms_eps});
}

void LaunchRecorder::gemm(const DeviceWeight& weight, const uint16_t* tiles, int32_t tokens, Epilogue epilogue,
                          float* out) {
  const int32_t multiprocessors = model_.multiprocessors;
  const int32_t token_tiles = model_.warpgroup_mma ? warpgroup_tiles(weight.matrix, tokens, multiprocessors) : 0;
  const GemmParams args{.weight = weight.matrix,
                        .activations = tiles,
                        .tokens = tokens,
                        .epilogue = epilogue,
                        .out = out,
                        .tiles = as_tiles(out),
                        .partials = model_.work.gemm_partials,
                        .counters = model_.work.gemm_counters,
                        .pdl = model_.dependent_launch,
                        .token_tiles = token_tiles};
  if (token_tiles > 0) {
    graph_.add<Kernel::gemm_warpgroup>(args);
  } else if (is_large(weight.matrix, tokens, multiprocessors)) {
    graph_.add<Kernel::gemm_large>(args);
  } else {
    graph_.add<Kernel::gemm>(args);
  }
}

void LaunchRecorder::norm_linear(const NormLinearArgs& args) {
  const DeviceWeight& weight = held(*args.weight);
  graph_.begin_kind(&StepSeconds::gemm);
  rms_norm(args.x, *args.norm, nullptr, model_.work.tiles, args.m);
  gemm(weight, model_.work.tiles, args.m,
       weight.spec.kind == WeightKind::gate_up ? Epilogue::silu_mul : Epilogue::store, args.out);
}

void LaunchRecorder::linear_add(const LinearAddArgs& args) {
  graph_.begin_kind(&StepSeconds::gemm);
  gemm(held(*args.weight), as_tiles(args.in), args.m, Epilogue::add, args.x);
  if (args.bias) graph_.add<Kernel::add_bias>({held(*args.bias).values, args.x, args.m, model_.shape.hidden});
}

void LaunchRecorder::attention(const AttentionArgs& args) {
  const StepShape& step = input_.shape();
  const StepTables tables = input_.tables();
  const auto values = [](const Weight* vector) { return vector ? held(*vector).values : nullptr; };
  graph_.begin_kind(&StepSeconds::attention);
  graph_.add<Kernel::rope>({.tables = tables,
                            .pages = model_.pages,
                            .qkv = args.qkv,
                            .q_norm = held(*args.q_norm).values,
                            .k_norm = held(*args.k_norm).values,
                            .rotations = model_.work.rotations,
                            .q = model_.work.q,
                            .rows = step.rows,
                            .layer = args.layer,
                            .heads = model_.shape.heads,
                            .eps = model_.shape.rms_eps,
                            .q_bias = values(args.q_bias),
                            .k_bias = values(args.k_bias),
                            .v_bias = values(args.v_bias)});
  AttentionParams a{.tables = tables,
                    .pages = model_.pages,
                    .q = model_.work.q,
                    .items = input_.narrow.get(),
                    .item_count = step.narrow,
                    .tiles = as_tiles(args.out),
                    .partials = model_.work.attention,
                    .layer = args.layer,
                    .heads = model_.shape.heads};
  if (step.narrow > 0) graph_.add<Kernel::attention_narrow>(a);
  a.items = input_.wide.get(), a.item_count = step.wide;
  if (step.wide > 0) graph_.add<Kernel::attention_wide>(a);
  if (step.merges == 0) return;
  graph_.add<Kernel::attention_merge>({.segments = tables.segments,
                                       .items = input_.merges.get(),
                                       .item_count = step.merges,
                                       .partials = model_.work.attention,
                                       .tiles = as_tiles(args.out),
                                       .heads = model_.shape.heads,
                                       .kv_heads = model_.shape.kv_heads,
                                       .head_dim = model_.shape.head_dim});
}

void LaunchRecorder::moe(const MoeArgs& args) {
  const int32_t experts = model_.shape.experts, rows = grouped_rows(args.m, experts, args.top_k);
  graph_.begin_kind(&StepSeconds::gemm);
  graph_.add<Kernel::route>({.x = args.x,
                             .norm = held(*args.norm).values,
                             .router = held(*args.router).values,
                             .experts = model_.work.experts,
                             .weights = model_.work.expert_weights,
                             .tokens = args.m,
                             .hidden = model_.shape.hidden,
                             .expert_count = experts,
                             .top_k = args.top_k,
                             .eps = model_.shape.rms_eps,
                             .renormalise = args.renormalise});
  graph_.add<Kernel::group>({model_.work.experts, model_.work.grouped, args.m, experts, args.top_k});
  rms_norm(args.x, *args.norm, model_.work.grouped.tokens, model_.work.grouped_tiles, rows);
  GroupedGemmParams g{.weights = model_.experts.at(args.gate_up.data()),
                      .shape = held(*args.gate_up[0]).matrix,
                      .activations = model_.work.grouped_tiles,
                      .begin = model_.work.grouped.begin,
                      .count = model_.work.grouped.count,
                      .expert_count = experts,
                      .tokens = args.m,
                      .top_k = args.top_k,
                      .wide = model_.wide_experts,
                      .epilogue = Epilogue::silu_mul,
                      .tiles = model_.work.inner_tiles};
  const auto multiply = [&] {
    graph_.add<Kernel::gemm_grouped>(g);
    if (g.wide && args.m > kTileTokens) graph_.add<Kernel::gemm_grouped_wide>(g);
  };
  multiply();
  g.weights = model_.experts.at(args.down.data());
  g.shape = held(*args.down[0]).matrix;
  g.activations = model_.work.inner_tiles;
  g.epilogue = Epilogue::store;
  g.out = model_.work.grouped_out;
  multiply();
  graph_.add<Kernel::combine>({model_.work.grouped_out, model_.work.grouped.rows, model_.work.expert_weights, args.x,
                               args.m, model_.shape.hidden, args.top_k});
}

/// Sampled rows in chunks, so that partial results and logits of the most rows need no more memory than a chunk's.
void LaunchRecorder::lm_head(const LmHeadArgs& args) {
  const DeviceWeight& weight = held(*args.weight);
  const SampledRows rows = input_.sampled_rows();
  const Workspace& work = model_.work;
  const int32_t all = rows.max_count, vocabulary = model_.shape.vocabulary;
  graph_.begin_kind(&StepSeconds::lm_head);
  rms_norm(args.x, *args.norm, input_.sampled_at.get(), work.tiles, all);
  for (int32_t first = 0; first < all; first += kLmHeadChunk) {
    SampledRows chunk = rows;
    chunk.data += first;
    chunk.count += first / kLmHeadChunk;
    chunk.max_count = std::min(kLmHeadChunk, all - first);
    const LmHeadBuffers buffers{work.head_numbers, work.head_ids, model_.logits, input_.results.get() + first,
                                input_.ranked.get()};
    graph_.add<Kernel::lm_head>({.weight = weight.matrix,
                                 .activations = work.tiles + activation_elements(first, model_.shape.hidden),
                                 .rows = chunk,
                                 .buffers = buffers});
    graph_.add<Kernel::lm_head_merge>({vocabulary, chunk, buffers});
    if (input_.shape().ranking) graph_.add<Kernel::rank_ids>({vocabulary, chunk, buffers});
    if (input_.shape().sampling) graph_.add<Kernel::sample>({vocabulary, chunk, buffers});
    const int32_t wanted = std::min(kLmHeadChunk, input_.sampled_count() - first);
    if (logits_ && wanted > 0)
      graph_.add_download(logits_ + int64_t{first} * vocabulary, model_.logits, size_t{4} * wanted * vocabulary);
  }
}

}  // namespace sdar::cuda
