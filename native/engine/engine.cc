#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>

#include "util/error.h"

namespace sdar {

namespace {

/// What a draft model and its target make of the options.
DraftContext draft_context(const Model& draft, const Model& target, const DraftOptions& options) {
  const int32_t own = draft.config.block_size;
  return {.block_length = options.block_length > 0 ? options.block_length : std::max(own, kDraftBlock),
          .context = draft.config.shape.context,
          .vocabulary = std::min(draft.config.shape.vocabulary, target.config.shape.vocabulary),
          .mask_id = draft.config.mask_token_id,
          .only_if_faster = options.only_if_faster,
          .cost = static_cast<double>(draft.weights.bytes) / static_cast<double>(target.weights.bytes)};
}

}  // namespace

Engine::Engine(std::unique_ptr<Model> model, const EngineOptions& options, std::function<void()> wake,
               std::unique_ptr<Model> draft)
    : draft_(std::move(draft)),
      model_(std::move(model)),
      context_{.context = model_->config.shape.context,
               .mask_id = model_->config.mask_token_id,
               .autoregressive = model_->config.decoding == Decoding::autoregressive,
               .end_ids = {},
               .token_bytes = {}},
      events_(std::move(wake)),
      pool_(static_cast<int32_t>(model_->cache.pages), options.prefix_cache),
      scheduler_(*model_->backend, pool_, events_, context_,
                 {.max_concurrent = options.max_concurrent,
                  .max_rows = options.max_rows,
                  .prefill_rows = options.prefill_rows,
                  .prefix_cache = options.prefix_cache}),
      stats_(scheduler_.stats()) {
  set_end_ids(model_->config.end_token_ids);
  if (draft_) {
    drafter_ = std::make_unique<Drafter>(*draft_->backend, draft_context(*draft_, *model_, options.draft), context_,
                                         draft_->cache.pages, options.max_rows, options.prefix_cache);
    scheduler_.set_drafter(drafter_.get());
  }
  thread_ = std::thread([this] { loop(); });
}

Engine::~Engine() { close(); }

void Engine::set_end_ids(std::vector<int32_t> ids) {
  context_.end_id = ids.empty() ? -1 : ids.front();
  std::sort(ids.begin(), ids.end());
  context_.end_ids = std::move(ids);
}

std::shared_ptr<Forms> Engine::forms() {
  if (!forms_)
    forms_ = std::make_shared<Forms>(context_.token_bytes, context_.end_ids, model_->config.shape.vocabulary);
  return forms_;
}

void Engine::submit(Request request) {
  if (request.block_length == 0) request.block_length = model_->config.block_size;
  check(request);
  // All that a step decides is kept or not by the sequence, which knows what was proposed.
  if (context_.autoregressive) request.denoise = {.strategy = Strategy::sequential, .steps = 1};
  std::lock_guard lock(mutex_);
  if (closing_) throw Error(code::kDisposed, "the engine has been disposed");
  inbox_.emplace_back(std::move(request));
  changed_.notify_one();
}

void Engine::signal(Signal signal) {
  std::lock_guard lock(mutex_);
  if (closing_) return;
  inbox_.emplace_back(signal);
  changed_.notify_one();
}

void Engine::abort(uint64_t id) { signal({Signal::abort, id}); }
void Engine::pause(uint64_t id) { signal({Signal::pause, id}); }
void Engine::resume(uint64_t id) { signal({Signal::resume, id}); }

EngineStats Engine::stats() const {
  std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  for (const Message& m : inbox_) stats.waiting += std::holds_alternative<Request>(m);
  return stats;
}

void Engine::close() {
  std::lock_guard once(close_mutex_);
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_one();
  }
  model_->backend->interrupt();
  if (draft_) draft_->backend->interrupt();
  if (thread_.joinable()) thread_.join();
}

void Engine::take(Message& message) {
  if (auto* request = std::get_if<Request>(&message)) {
    const uint64_t id = request->id;
    try {
      scheduler_.add(std::move(*request));
    } catch (const std::bad_alloc&) {
      events_.failed(id, {code::kOutOfMemory, "the system has no memory left for the request"});
    }
    return;
  }
  const Signal signal = std::get<Signal>(message);
  if (signal.kind == Signal::abort) return scheduler_.abort(signal.id);
  if (signal.kind == Signal::pause) return scheduler_.pause(signal.id);
  scheduler_.resume(signal.id);
}

/// Events other than first tokens and ends wait so long for others to join them.
constexpr auto kQuiet = std::chrono::milliseconds(4);

void Engine::loop() {
  std::vector<Message> messages;
  Scheduler::Clock::time_point published{};
  size_t taken = 0;  // of them; what could not be taken for want of memory is tried again
  for (;;) {
    bool closing = false;
    {
      std::unique_lock lock(mutex_);
      const auto called = [this] { return closing_ || !inbox_.empty(); };
      if (scheduler_.idle() && taken == messages.size() && events_.empty()) {
        const auto deadline = scheduler_.next_deadline();
        if (deadline == Scheduler::Clock::time_point::max()) {
          changed_.wait(lock, called);
        } else {
          changed_.wait_until(lock, deadline, called);
        }
      }
      if (taken == messages.size()) {
        messages.clear();
        taken = 0;
        messages.swap(inbox_);
      }
      closing = closing_ && inbox_.empty();
    }
    try {
      for (; taken < messages.size(); taken++) take(messages[taken]);
      if (closing) {
        scheduler_.fail_all({code::kDisposed, "the engine was disposed while the request was running"});
      } else if (scheduler_.idle()) {
        scheduler_.expire(Scheduler::Clock::now());
      } else {
        scheduler_.step();
      }
      {
        std::lock_guard lock(mutex_);
        stats_ = scheduler_.stats();
      }
      // After the counters, so that who sees an event sees what it counted. Where steps are short the reader's thread
      // may be taken from the very cores that compute: it is not woken for every one of them.
      const auto now = Scheduler::Clock::now();
      if (events_.urgent() || scheduler_.idle() || now - published >= kQuiet) {
        events_.publish();
        published = now;
      }
    } catch (const std::bad_alloc&) {
      // Not even an error can be told. What is to be done stays as it is.
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    if (closing) return;
  }
}

namespace {
std::string text(double value) {
  std::string s = std::to_string(value);
  return s.substr(0, s.find_last_not_of("0.") + 2);
}

template <class T>
void require(bool ok, const char* option, T value, const char* allowed) {
  if (!ok)
    throw Error(code::kInvalidOption, std::string(option) + " is " + text(double(value)) + "; allowed: " + allowed);
}

void require_ids(const std::vector<int32_t>& ids, const char* option, int32_t vocabulary) {
  for (size_t i = 0; i < ids.size(); i++)
    if (ids[i] < 0 || ids[i] >= vocabulary)
      throw Error(code::kTokenOutOfRange,
                  std::string(option) + "[" + std::to_string(i) + "]: " + std::to_string(ids[i]) +
                      " is not a token of this model; give an integer from 0 to " + std::to_string(vocabulary - 1));
}
}  // namespace

/// What C++ callers get wrong; of JavaScript's options lib/options.ts has judged all, in the same words.
void Engine::check(const Request& r) const {
  const ModelShape& shape = model_->config.shape;
  if (r.tokens.empty()) throw Error(code::kEmptyPrompt, "the prompt is empty; give at least one token");
  require_ids(r.tokens, "tokens", shape.vocabulary);
  require_ids(r.stop_tokens, "stopTokens", shape.vocabulary);
  require_ids(r.suppress, "suppress", shape.vocabulary);
  require_ids(r.bias_ids, "logitBias", shape.vocabulary);
  require(r.block_length >= 1 && r.block_length <= kMaxBlockLength, "blockLength", r.block_length,
          "an integer from 1 to 64");
  if (context_.autoregressive) {
    require(r.block_length == 1, "blockLength", r.block_length, "none for an autoregressive model");
    require(!r.drafts, "drafts", 1, "none for an autoregressive model");
  }
  if (r.denoise.strategy == Strategy::self_verified && !model_->backend->can_verify())
    throw Error(code::kInvalidOption,
                "denoise.strategy is \"self_verified\"; on " + model_->backend->device() + " allowed: any other");
  require(r.max_tokens >= 1, "maxTokens", r.max_tokens, "an integer >= 1");
  require(r.min_tokens >= 0, "minTokens", r.min_tokens, "an integer >= 0");
  require(r.denoise.steps >= 0, "steps", r.denoise.steps, "an integer >= 1, or 0 for blockLength");
  require(r.denoise.threshold >= 0 && r.denoise.threshold <= 1, "threshold", r.denoise.threshold,
          "a number from 0 to 1");
  require(r.denoise.entropy_bound >= 0, "entropyBound", r.denoise.entropy_bound, "a number >= 0");
  require(r.denoise.factor >= 0, "factor", r.denoise.factor, "a number >= 0");
  require(r.temperature >= 0 && r.temperature <= 100, "temperature", r.temperature, "a number from 0 to 100");
  require(r.top_k >= 0, "topK", r.top_k, "an integer >= 0");
  require(r.top_p > 0 && r.top_p <= 1, "topP", r.top_p, "a number above 0, up to 1");
  require(r.min_p >= 0 && r.min_p <= 1, "minP", r.min_p, "a number from 0 to 1");
  require(r.repetition_penalty >= 0.1f && r.repetition_penalty <= 10, "repetitionPenalty", r.repetition_penalty,
          "a number from 0.1 to 10");
  require(std::abs(r.presence_penalty) <= 2, "presencePenalty", r.presence_penalty, "a number from -2 to 2");
  require(std::abs(r.frequency_penalty) <= 2, "frequencyPenalty", r.frequency_penalty, "a number from -2 to 2");
  require(r.top_logprobs >= 0 && r.top_logprobs <= kMaxTopLogprobs, "topLogprobs", r.top_logprobs,
          "an integer from 0 to 20");
  require(r.completion >= 0, "answer", r.completion, "an integer >= 0");
  require(std::isfinite(r.rank), "rank", r.rank, "finite numbers");
  require(r.bias_ids.size() == r.bias_values.size(), "logitBias", r.bias_values.size(), "one value per token id");
  require(std::is_sorted(r.bias_ids.begin(), r.bias_ids.end()), "logitBias", 0, "token ids in ascending order");
  for (float v : r.bias_values) require(std::isfinite(v), "logitBias", v, "finite numbers");
  for (const std::string& s : r.stop) require(!s.empty(), "stop", 0, "strings that are not empty");

  const int32_t usable = shape.context / r.block_length * r.block_length;
  const int64_t prompt = static_cast<int64_t>(r.tokens.size());
  if (prompt >= usable)
    throw Error(code::kPromptTooLong, "the prompt has " + std::to_string(prompt) + " tokens; the context of " +
                                          std::to_string(shape.context) + " in blocks of " +
                                          std::to_string(r.block_length) + " takes at most " +
                                          std::to_string(usable - 1));
  const int64_t limit = std::min<int64_t>(prompt + r.max_tokens, usable);
  require_ids(r.given, "given", shape.vocabulary);
  if (!r.given.empty())
    require(r.max_tokens == static_cast<int32_t>(r.given.size()) && r.ignore_eos && !r.form, "given",
            static_cast<double>(r.given.size()), "as many as maxTokens, with ignoreEos and without a form");
  if (r.form) {
    require(forms_ && forms_->owns(*r.form), "format", 0, "a form that this engine compiled");
    require(!r.ignore_eos, "ignoreEos", 1, "none with a format");
    require(r.min_tokens == 0, "minTokens", r.min_tokens, "none with a format");
    require(r.suppress.empty(), "suppress", static_cast<double>(r.suppress.size()), "none with a format");
    if (limit - prompt < r.form->least_tokens())
      throw Error(code::kInvalidOption, "format needs at least " + std::to_string(r.form->least_tokens()) +
                                            " tokens; maxTokens and the context leave " +
                                            std::to_string(limit - prompt));
  }
  const int64_t last = (limit + r.block_length - 1) / r.block_length * r.block_length;
  if (pages_for(static_cast<int32_t>(last), r.block_length) > pool_.total())
    throw Error(code::kCacheTooSmall, "the request may need " + std::to_string(last) +
                                          " tokens of KV cache; kvCache holds " +
                                          std::to_string(int64_t(pool_.total()) * tokens_per_page(r.block_length)) +
                                          ": lower maxTokens or raise kvCache");
}

}  // namespace sdar
