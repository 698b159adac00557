// The op table of the CUDA backend: which launches an op is.
#include <algorithm>

#include "backend/cuda/backend.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

uint16_t* as_tiles(float* memory) { return reinterpret_cast<uint16_t*>(memory); }
const uint16_t* as_tiles(const float* memory) { return reinterpret_cast<const uint16_t*>(memory); }

}  // namespace

void CudaBackend::begin_step(std::span<const Segment> segments, int32_t rows) {
  input_->lay_out(segments, rows);
  input_->upload();
}

void CudaBackend::embed(const Weight& table, std::span<const int32_t> ids, float* x) {
  const int32_t rows = input_->shape().rows;
  begin_kind(&OpSeconds::products);
  if (!recording_) {
    std::copy(ids.begin(), ids.end(), input_->ids.host());
    input_->ids.upload(ids.size());
  }
  emit<Kernel::embed>({held(table).matrix, input_->ids.get(), x, rows});
}

void CudaBackend::norm(const float* x, const Weight& weight, const int32_t* rows, uint16_t* tiles, int32_t tokens) {
  emit<Kernel::rms_norm>({.x = x,
                          .norm = held(weight).values,
                          .rows = rows,
                          .tiles = tiles,
                          .tokens = tokens,
                          .hidden = shape_.hidden,
                          .eps = shape_.rms_eps});
}

void CudaBackend::product(const DeviceWeight& weight, const uint16_t* tiles, int32_t tokens, Epilogue epilogue,
                          float* out) {
  const int32_t multiprocessors = device_.card().multiprocessors;
  const int32_t token_tiles = warpgroups_ ? warpgroup_tiles(weight.matrix, tokens, multiprocessors) : 0;
  const GemmParams args{.weight = weight.matrix,
                        .activations = tiles,
                        .tokens = tokens,
                        .epilogue = epilogue,
                        .out = out,
                        .tiles = as_tiles(out),
                        .partials = work_.gemm_partials,
                        .counters = work_.gemm_counters,
                        .pdl = early_,
                        .token_tiles = token_tiles};
  if (token_tiles > 0) {
    emit<Kernel::gemm_warpgroup>(args);
  } else if (is_large(weight.matrix, tokens, multiprocessors)) {
    emit<Kernel::gemm_large>(args);
  } else {
    emit<Kernel::gemm>(args);
  }
}

void CudaBackend::norm_linear(const NormLinearArgs& args) {
  const DeviceWeight& weight = held(*args.weight);
  begin_kind(&OpSeconds::products);
  norm(args.x, *args.norm, nullptr, work_.tiles, args.m);
  product(weight, work_.tiles, args.m, weight.spec.kind == WeightKind::gate_up ? Epilogue::silu_mul : Epilogue::store,
          args.out);
}

void CudaBackend::linear_add(const LinearAddArgs& args) {
  begin_kind(&OpSeconds::products);
  product(held(*args.weight), as_tiles(args.in), args.m, Epilogue::add, args.x);
}

void CudaBackend::attention(const sdar::AttentionArgs& args) {
  const StepShape& step = input_->shape();
  const StepTables tables = input_->tables();
  begin_kind(&OpSeconds::attention);
  emit<Kernel::rope>({.tables = tables,
                      .pages = pages_,
                      .qkv = args.qkv,
                      .q_norm = held(*args.q_norm).values,
                      .k_norm = held(*args.k_norm).values,
                      .rotations = work_.rotations,
                      .q = work_.q,
                      .rows = step.rows,
                      .layer = args.layer,
                      .heads = shape_.heads,
                      .eps = shape_.rms_eps});
  AttentionParams a{.tables = tables,
                    .pages = pages_,
                    .q = work_.q,
                    .items = input_->narrow.get(),
                    .item_count = step.narrow,
                    .tiles = as_tiles(args.out),
                    .partials = work_.attention,
                    .layer = args.layer,
                    .heads = shape_.heads};
  if (step.narrow > 0) emit<Kernel::attention_narrow>(a);
  a.items = input_->wide.get(), a.item_count = step.wide;
  if (step.wide > 0) emit<Kernel::attention_wide>(a);
  if (step.merges == 0) return;
  emit<Kernel::attention_merge>({.segments = tables.segments,
                                 .items = input_->merges.get(),
                                 .item_count = step.merges,
                                 .partials = work_.attention,
                                 .tiles = as_tiles(args.out),
                                 .heads = shape_.heads,
                                 .kv_heads = shape_.kv_heads,
                                 .head_dim = shape_.head_dim});
}

const uint8_t* const* CudaBackend::expert_pointers(std::span<const Weight* const> experts) {
  const auto [at, fresh] = experts_.try_emplace(experts.data());
  if (!fresh) return at->second;
  at->second = work_.expert_data + (experts_.size() - 1) * static_cast<size_t>(shape_.experts);
  std::vector<const uint8_t*> pointers;
  for (const Weight* expert : experts) pointers.push_back(held(*expert).matrix.data);
  device_.upload_now(at->second, pointers.data(), pointers.size() * sizeof pointers[0]);
  return at->second;
}

void CudaBackend::moe(const MoeArgs& args) {
  const int32_t experts = shape_.experts, rows = grouped_rows(args.m, experts, args.top_k);
  begin_kind(&OpSeconds::products);
  emit<Kernel::route>({.x = args.x,
                       .norm = held(*args.norm).values,
                       .router = held(*args.router).values,
                       .experts = work_.experts,
                       .weights = work_.expert_weights,
                       .tokens = args.m,
                       .hidden = shape_.hidden,
                       .expert_count = experts,
                       .top_k = args.top_k,
                       .eps = shape_.rms_eps,
                       .renormalise = args.renormalise});
  emit<Kernel::group>({work_.experts, work_.grouped, args.m, experts, args.top_k});
  norm(args.x, *args.norm, work_.grouped.tokens, work_.grouped_tiles, rows);
  GroupedGemmParams g{.weights = expert_pointers(args.gate_up),
                      .shape = held(*args.gate_up[0]).matrix,
                      .activations = work_.grouped_tiles,
                      .begin = work_.grouped.begin,
                      .count = work_.grouped.count,
                      .expert_count = experts,
                      .tokens = args.m,
                      .top_k = args.top_k,
                      .epilogue = Epilogue::silu_mul,
                      .tiles = work_.inner_tiles};
  emit<Kernel::gemm_grouped>(g);
  g.weights = expert_pointers(args.down);
  g.shape = held(*args.down[0]).matrix;
  g.activations = work_.inner_tiles;
  g.epilogue = Epilogue::store;
  g.out = work_.grouped_out;
  emit<Kernel::gemm_grouped>(g);
  emit<Kernel::combine>(
      {work_.grouped_out, work_.grouped.rows, work_.expert_weights, args.x, args.m, shape_.hidden, args.top_k});
}

/// The requests of a step whose host chooses, as gather_rows would write them.
void CudaBackend::list_on_host(const sdar::LmHeadArgs& args) {
  StepInput& in = *input_;
  const int32_t count = static_cast<int32_t>(args.requests.size());
  size_t suppressed = 0, bias = 0;
  for (const SampledRow& r : args.requests) suppressed += r.suppressed.size(), bias += r.bias_ids.size();
  in.begin_lists(suppressed, bias);
  for (int32_t i = 0; i < count; i++) {
    const SampledRow& r = args.requests[i];
    in.request_rows[i] = r.row;
    in.requests[i] = {.uniform = r.uniform,
                      .temperature = r.temperature,
                      .top_p = r.top_p,
                      .top_k = r.top_k,
                      .sampled_confidence = r.confidence == Confidence::sampled,
                      .suppressed = in.add_suppressed(r.suppressed),
                      .suppressed_count = static_cast<int32_t>(r.suppressed.size()),
                      .bias = in.add_bias(r.bias_ids, r.bias_values),
                      .bias_count = static_cast<int32_t>(r.bias_ids.size()),
                      .logits = r.temperature > 0 || args.logits ? i % kLmHeadChunk : -1};
  }
  for (int32_t turn = 0; turn * kLmHeadChunk < count; turn++)
    in.request_counts[turn] = std::min(kLmHeadChunk, count - turn * kLmHeadChunk);
  in.requests.upload(static_cast<size_t>(count));
  in.request_rows.upload(static_cast<size_t>(count));
  in.request_counts.upload(static_cast<size_t>(ceil_div(count, kLmHeadChunk)));
  in.upload_lists();
}

/// Requests in turns, so that partial results and logits of the most rows need no more memory than a turn's.
void CudaBackend::head_turns(const DeviceWeight& weight, SampledRows lists, bool sampling, float* logits) {
  const int32_t all = lists.max_count, vocabulary = shape_.vocabulary;
  for (int32_t first = 0; first < all; first += kLmHeadChunk) {
    SampledRows turn = lists;
    turn.data += first;
    turn.count += first / kLmHeadChunk;
    turn.max_count = std::min(kLmHeadChunk, all - first);
    const LmHeadBuffers buffers{work_.head_numbers, work_.head_ids, logits_, input_->results.get() + first};
    emit<Kernel::lm_head>({.weight = weight.matrix,
                           .activations = work_.tiles + activation_elements(first, shape_.hidden),
                           .rows = turn,
                           .buffers = buffers});
    emit<Kernel::lm_head_merge>({vocabulary, turn, buffers});
    if (sampling) emit<Kernel::sample>({vocabulary, turn, buffers});
    if (logits) {
      device_.download_now(logits + int64_t{first} * vocabulary, logits_, size_t{4} * turn.max_count * vocabulary);
    }
  }
}

void CudaBackend::head(const sdar::LmHeadArgs& args) {
  const DeviceWeight& weight = held(*args.weight);
  StepInput& in = *input_;
  SampledRows lists = in.head_lists();
  bool sampling = in.shape().sampling;
  if (!recording_) {
    if (args.requests.empty()) return;
    if (static_cast<int32_t>(args.requests.size()) > in.max_rows())
      throw Error(code::kInternal, "more rows of the head than rows of a step");
    sampling =
        std::any_of(args.requests.begin(), args.requests.end(), [](const SampledRow& r) { return r.temperature > 0; });
    if (sampling || args.logits) prepare_sampling();
    list_on_host(args);
    lists = in.head_lists();
    lists.max_count = static_cast<int32_t>(args.requests.size());
  }
  begin_kind(&OpSeconds::head);
  norm(args.x, *args.norm, in.request_rows.get(), work_.tiles, lists.max_count);
  head_turns(weight, lists, sampling, args.logits);
  if (recording_) return;
  in.results.download(args.requests.size());
  device_.mark(0);
  device_.wait(0);
  for (size_t i = 0; i < args.results.size(); i++) args.results[i] = host_result(in.results[i]);
}

void CudaBackend::finish_step() {
  device_.mark(0);
  device_.wait(0);
}

SampledToken host_result(const DeviceSampledToken& r) {
  return {r.token, r.confidence, r.logprob, r.entropy, r.max, r.logsumexp, r.finite != 0};
}

}  // namespace sdar::cuda
