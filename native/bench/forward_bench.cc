#include "bench/forward_bench.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "bench/shapes.h"
#include "cache/page_pool.h"
#include "util/error.h"

namespace sdar {
namespace {

constexpr int32_t kPrefillRows = 512;

/// The largest power of two up to 64 that divides both; of 0 every number is a divisor. So all sizes share one layout
/// of pages.
int32_t common_block(int32_t tokens, int32_t context) {
  int32_t length = kMaxBlockLength;
  while (tokens % length != 0 || context % length != 0) length /= 2;
  return length;
}

std::unique_ptr<Model> make_model(const BenchOptions& options, WeightHooks hooks) {
  if (options.context < 0 || options.max_tokens < 1)
    throw Error(code::kInvalidOption, "context is " + std::to_string(options.context) + " and tokens " +
                                          std::to_string(options.max_tokens) + "; allowed: >= 0 and >= 1");
  EngineOptions engine = options.engine;
  const int64_t positions = int64_t{options.context} + options.max_tokens;
  engine.max_rows = std::max(options.max_tokens, kPrefillRows);
  // Blocks that do not divide a page leave up to half of it empty. What is not written takes no memory.
  engine.kv_tokens = 2 * positions + kPageSlots;
  engine.kv_bytes = 0;
  auto model = options.shape.empty()
                   ? load_model(engine, std::move(hooks))
                   : random_model(shape_config(options.shape, options.layers), engine, options.seed, std::move(hooks));
  if (positions > model->config.shape.context)
    throw Error(code::kPromptTooLong,
                "context " + std::to_string(options.context) + " and " + std::to_string(options.max_tokens) +
                    " tokens exceed the model's context of " + std::to_string(model->config.shape.context));
  return model;
}

uint64_t all_of(int32_t block) { return ~uint64_t{0} >> (64 - block); }

double packed_bytes(const Weight* weight, const Backend& backend) {
  return weight ? static_cast<double>(backend.packed_bytes(weight->spec)) : 0;
}
double elements(const Weight* weight) {
  return weight ? static_cast<double>(weight->spec.rows) * static_cast<double>(weight->spec.cols) : 0;
}

/// ln Σ exp(x)
double log_sum_exp(std::span<const float> x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (float v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

/// Σ p · ln(p / q) of the softmaxes of two rows of logits.
double divergence(std::span<const float> p, std::span<const float> q) {
  const double shift = log_sum_exp(p), difference = shift - log_sum_exp(q);
  double sum = 0;
  for (size_t i = 0; i < p.size(); i++) sum += std::exp(p[i] - shift) * (double{p[i]} - q[i] - difference);
  return sum;
}

}  // namespace

ForwardBench::ForwardBench(const BenchOptions& options, WeightHooks hooks)
    : model_(make_model(options, std::move(hooks))), context_(options.context), max_tokens_(options.max_tokens) {
  pages_.resize(static_cast<size_t>(model_->cache.pages));
  std::iota(pages_.begin(), pages_.end(), 0);
  std::minstd_rand random(1);
  ids_.resize(static_cast<size_t>(context_ + max_tokens_));
  for (int32_t& id : ids_) id = static_cast<int32_t>(random() % static_cast<uint32_t>(model_->config.shape.vocabulary));
}

std::span<const SequenceResult> ForwardBench::forward(std::span<const int32_t> ids, int32_t position, int32_t rows,
                                                      int32_t block_length, uint64_t masked, float* logits) {
  step_.clear();
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(rows)) {
    const int32_t first = position + static_cast<int32_t>(at);
    step_.add({.segment = {.rows = rows, .position = first, .block_length = block_length, .pages = pages_.data()},
               .ids = ids.data() + at,
               .denoise = masked != 0,
               .masked = masked,
               .sampling = &sampling_,
               .suppressed = std::span(&model_->config.mask_token_id, 1)});
  }
  step_.logits = logits;
  return model_->backend->run(step_);
}

void ForwardBench::fill_context() {
  if (filled_) return;
  recorded_.clear();
  const int32_t block = common_block(0, context_);
  for (int32_t at = 0; at < context_;) {
    const int32_t rows = std::min(kPrefillRows, context_ - at);
    forward(std::span(ids_).subspan(at, rows), at, rows, block, 0, nullptr);
    at += rows;
  }
  filled_ = true;
}

double ForwardBench::run(int32_t tokens, int32_t context, bool logits) {
  if (tokens < 1 || tokens > max_tokens_)
    throw Error(code::kInvalidOption,
                "tokens is " + std::to_string(tokens) + "; allowed: 1 to " + std::to_string(max_tokens_));
  if (context < 0 || context > context_)
    throw Error(code::kInvalidOption,
                "context is " + std::to_string(context) + "; allowed: 0 to " + std::to_string(context_));
  fill_context();
  if (logits) logits_.resize(static_cast<size_t>(tokens) * model_->config.shape.vocabulary);
  const int64_t before = model_->backend->experts_read();
  const auto start = std::chrono::steady_clock::now();
  const int32_t block = common_block(tokens, context);
  const auto results = forward(std::span(ids_).subspan(context, tokens), context, block, block, all_of(block),
                               logits ? logits_.data() : nullptr);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  experts_[{tokens, context}] = model_->backend->experts_read() - before;
  for (const SequenceResult& result : results)
    if (!result.finite) throw Error(code::kNumericError, "the forward gave logits that are not finite");
  return seconds;
}

double ForwardBench::experts_per_layer(int32_t tokens, int32_t context) const {
  const ModelConfig& config = model_->config;
  const auto sparse = std::count(config.sparse.begin(), config.sparse.end(), true);
  if (sparse == 0) return 0;
  const auto it = experts_.find({tokens, context});
  if (it != experts_.end() && it->second > 0) return static_cast<double>(it->second) / static_cast<double>(sparse);
  const ModelShape& s = config.shape;
  return s.experts * (1 - std::pow(1 - static_cast<double>(s.experts_per_token) / s.experts, tokens));
}

ForwardCost ForwardBench::cost(int32_t tokens, int32_t context) const {
  const ModelWeights& weights = model_->weights;
  const ModelShape& s = model_->config.shape;
  const Backend& backend = *model_->backend;
  ForwardCost cost;
  double multiplied = 0;  // elements that meet every token
  const auto add = [&](const Weight* weight, double share_read, double share_multiplied) {
    cost.weight_bytes += packed_bytes(weight, backend) * share_read;
    multiplied += elements(weight) * share_multiplied;
  };
  const double chosen = s.experts > 0 ? static_cast<double>(s.experts_per_token) / s.experts : 0;
  cost.experts_per_layer = experts_per_layer(tokens, context);
  const double met = s.experts > 0 ? cost.experts_per_layer / s.experts : 0;
  for (const LayerWeights& layer : weights.layers) {
    for (const auto* weight : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down, &layer.router})
      add(weight->get(), 1, 1);
    for (const auto& expert : layer.expert_gate_up) add(expert.get(), met, chosen);
    for (const auto& expert : layer.expert_down) add(expert.get(), met, chosen);
  }
  add(weights.lm_head ? weights.lm_head.get() : weights.embedding.get(), 1, 1);

  const int32_t block = common_block(tokens, context);
  // Keys that a token meets: the context and, on average, half of the blocks of this forward.
  const double keys = context + (tokens + block) / 2.0;
  cost.kv_bytes = static_cast<double>(model_->page_bytes) / kPageSlots * (context + tokens);
  cost.operations = 2.0 * tokens * (multiplied + 2.0 * s.layers * s.heads * s.head_dim * keys);
  return cost;
}

LimitProbe& ForwardBench::limits() {
  if (limits_) return *limits_;
  const Backend& backend = *model_->backend;
  if (backend.device() != "cpu")
    throw Error(code::kUnsupportedDevice, "limits are measured on the CPU; device is \"" + backend.device() + "\"");
  limits_ = make_limit_probe(backend.threads(), backend.isa());
  return *limits_;
}

std::vector<float> ForwardBench::logits(const RecordedStep& step) {
  const int32_t rows = static_cast<int32_t>(step.tokens.size()), block = step.block_length;
  const int32_t vocabulary = model_->config.shape.vocabulary;
  if (block < 1 || block > kMaxBlockLength || rows < 1 || rows % block != 0 || rows > max_tokens_ ||
      pages_for(rows, block) > static_cast<int32_t>(pages_.size()))
    throw Error(code::kInvalidOption, "a step has " + std::to_string(rows) + " tokens in blocks of " +
                                          std::to_string(block) + "; allowed: whole blocks of 1 to " +
                                          std::to_string(kMaxBlockLength) + ", up to " + std::to_string(max_tokens_));
  if (step.masked == 0 || (block < 64 && step.masked >> block != 0))
    throw Error(code::kInvalidOption, "a step masks no position, or one beyond its block");
  for (int32_t id : step.tokens)
    if (id < 0 || id >= vocabulary)
      throw Error(code::kTokenOutOfRange,
                  "a step has token " + std::to_string(id) + "; allowed: 0 to " + std::to_string(vocabulary - 1));
  const std::span tokens(step.tokens);
  const int32_t known = rows - block;
  // Blocks that the last step had as well are in the cache.
  int32_t begin = 0;
  if (block == recorded_block_)
    while (begin < known && begin < static_cast<int32_t>(recorded_.size()) && recorded_[begin] == tokens[begin])
      begin++;
  begin -= begin % block;
  recorded_.resize(static_cast<size_t>(begin));
  filled_ = false;
  std::vector<float> logits(std::popcount(step.masked) * static_cast<size_t>(vocabulary));
  forward(tokens.subspan(begin), begin, rows - begin, block, step.masked, logits.data());
  recorded_.assign(tokens.begin(), tokens.begin() + known);
  recorded_block_ = block;
  return logits;
}

Divergence ForwardBench::compare(ForwardBench& other, std::span<const RecordedStep> steps) {
  const size_t vocabulary = static_cast<size_t>(model_->config.shape.vocabulary);
  if (other.model_->config.shape.vocabulary != model_->config.shape.vocabulary)
    throw Error(code::kInvalidOption, "the two models have different vocabularies");
  Divergence total;
  for (const RecordedStep& step : steps) {
    const std::vector<float> mine = logits(step), theirs = other.logits(step);
    for (size_t at = 0; at < mine.size(); at += vocabulary) {
      const std::span p(mine.data() + at, vocabulary), q(theirs.data() + at, vocabulary);
      total.positions++;
      total.kl += divergence(p, q);
      total.same_argmax +=
          std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
    }
  }
  return total;
}

}  // namespace sdar
