// The engine a host embeds: a checkpoint on a device, a native thread that runs the step loop, requests in, events out.
// Any thread may call; nothing here waits for a step.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "backend/backend.h"
#include "engine/forms.h"
#include "engine/scheduler.h"
#include "model/config.h"
#include "model/weights.h"

namespace sdar {

/// A block-diffusion checkpoint that drafts for an autoregressive one.
struct DraftOptions {
  std::string path = {};                               ///< as EngineOptions::path; empty: none
  std::optional<WeightFormat> weights = std::nullopt;  ///< as EngineOptions::weights
  int32_t block_length = 0;                            ///< 0: the checkpoint's, at least 16
  bool only_if_faster = false;  ///< by the clock; how much is drafted then depends on the machine
};

struct EngineOptions {
  std::string path;                                    ///< folder of a checkpoint in the Hugging Face layout
  std::string device = "auto";                         ///< auto, cpu, cuda, cuda:N
  std::optional<WeightFormat> weights = std::nullopt;  ///< default: bf16 with cuda, cuda:N, else as stored
  int threads = 0;                                     ///< 0: all this process may use
  std::string isa = {};                                ///< empty: the best this machine has
  int32_t max_concurrent = 64;
  int64_t kv_tokens = 0;  ///< capacity of the KV cache; both 0: from the memory available
  int64_t kv_bytes = 0;
  double memory_share = 1;  ///< of the memory available that the cache may take, where its capacity is not given
  std::optional<KvFormat> kv_format = std::nullopt;  ///< default: f32 with f32 weights, else bf16
  CacheSettings weight_cache = {};                   ///< where packed weights are kept for the next load
  int32_t max_rows = 2048;
  /// Most rows of a step for prompts; 0: 512, beside running requests as many as about double a step's time.
  int32_t prefill_rows = 0;
  bool prefix_cache = true;  ///< share pages of equal contents, and keep them while there is room
  bool time_steps = false;   ///< EngineStats::seconds on a GPU, too, where steps take longer for it
  DraftOptions draft = {};
  // Opt-in until bench/gpu has shown them right and faster on a GPU (backend/cuda/cuda.h).
  bool cuda_warpgroup_mma = false;
  bool cuda_dependent_launch = false;
  bool cuda_wide_experts = false;
};

/// A checkpoint on a device, its cache laid out: backend->run(step) computes.
struct Model {
  std::unique_ptr<Backend> backend;  // first: the others refer to it
  ModelConfig config;
  ModelWeights weights;
  WeightFormat format = WeightFormat::f32;
  CacheShape cache;
  size_t page_bytes = 0;
  std::string cuda_unavailable = {};  ///< why device "auto" computes on the CPU although a GPU answers; else empty
};

/// `hooks.threads` is set here. `beside`: a model that computes in turns with this one, whose threads it takes.
std::unique_ptr<Model> load_model(const EngineOptions& options, WeightHooks hooks, const Model* beside = nullptr);
/// The model of options.draft; to be loaded before the target beside it. Null when none is named. Throws
/// Error(INVALID_OPTION) unless the one denoises blocks and the other is autoregressive.
std::unique_ptr<Model> load_draft(const EngineOptions& options, WeightHooks hooks);
/// The same of `config` with random_weights; options.path is not looked at.
std::unique_ptr<Model> random_model(const ModelConfig& config, const EngineOptions& options, uint64_t seed,
                                    WeightHooks hooks);

class Engine {
 public:
  /// `wake` is called from the native thread, coalesced, when take_events() has something.
  /// `draft`: as load_draft() gives it.
  Engine(std::unique_ptr<Model> model, const EngineOptions& options, std::function<void()> wake,
         std::unique_ptr<Model> draft = nullptr);
  ~Engine();  ///< close()

  const Model& model() const { return *model_; }
  const Model* draft() const { return draft_.get(); }
  /// For stop strings. Before the first submit().
  void set_token_bytes(TokenBytes bytes) { context_.token_bytes = std::move(bytes); }
  /// In the place of the checkpoint's config. Before the first submit().
  void set_end_ids(std::vector<int32_t> ids);

  /// Compiles forms that requests of this engine may name; outlives it where need be. After the two before.
  std::shared_ptr<Forms> forms();

  /// Throws Error for what can never run (EMPTY_PROMPT, TOKEN_OUT_OF_RANGE, PROMPT_TOO_LONG, CACHE_TOO_SMALL,
  /// INVALID_OPTION, DISPOSED); what goes wrong later comes as an event.
  void submit(Request request);
  void abort(uint64_t id);
  /// Stops computing a request until resume(); its pages may be taken meanwhile and recomputed later.
  void pause(uint64_t id);
  void resume(uint64_t id);
  EventBatch take_events() { return events_.take(); }
  EngineStats stats() const;

  /// Fails what is there with DISPOSED and joins the thread. Idempotent.
  void close();

 private:
  void check(const Request& request) const;
  void loop();

  struct Signal {
    enum Kind : uint8_t { abort, pause, resume } kind;
    uint64_t id;
  };
  using Message = std::variant<Request, Signal>;
  void signal(Signal signal);
  void take(Message& message);

  std::unique_ptr<Model> draft_;  // before model_, which may use its threads
  std::unique_ptr<Model> model_;
  SequenceContext context_;
  std::shared_ptr<Forms> forms_;  // made when it is asked for, on the caller's thread
  EventBuffer events_;
  PagePool pool_;
  std::unique_ptr<Drafter> drafter_;
  Scheduler scheduler_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Message> inbox_;
  bool closing_ = false;
  EngineStats stats_;

  std::mutex close_mutex_;
  std::thread thread_;
};

}  // namespace sdar
