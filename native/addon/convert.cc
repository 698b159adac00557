#include "addon/convert.h"

#include <cfloat>
#include <chrono>
#include <cstring>
#include <optional>

#include "addon/form.h"
#include "util/error.h"

namespace sdar::addon {

Napi::Error from_error(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

namespace {

[[noreturn]] void refuse(Napi::Env env, const char* name, const char* allowed) {
  throw from_error(env, code::kInvalidOption,
                   std::string(name) + " is missing or of the wrong type; allowed: " + allowed);
}

}  // namespace

double number(const Napi::Object& o, const char* name, double low, double high) {
  const Napi::Value v = o.Get(name);
  if (!v.IsNumber()) refuse(o.Env(), name, "a number");
  const double x = v.As<Napi::Number>().DoubleValue();
  if (!(x >= low && x <= high))
    throw from_error(o.Env(), code::kInvalidOption,
                     std::string(name) + " is " + std::to_string(x) + "; allowed: " + std::to_string(low) + " to " +
                         std::to_string(high));
  return x;
}

int32_t integer(const Napi::Object& o, const char* name, double low, double high) {
  return static_cast<int32_t>(number(o, name, low, high));
}

bool boolean(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsBoolean()) refuse(o.Env(), name, "true or false");
  return v.As<Napi::Boolean>().Value();
}

std::string string(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsString()) refuse(o.Env(), name, "a string");
  return v.As<Napi::String>().Utf8Value();
}

namespace {

template <class Array, class T>
std::vector<T> typed_array(const Napi::Object& o, const char* name, napi_typedarray_type type, const char* allowed) {
  const Napi::Value v = o.Get(name);
  if (!v.IsTypedArray() || v.As<Napi::TypedArray>().TypedArrayType() != type) refuse(o.Env(), name, allowed);
  const Array a = v.As<Array>();
  const T* data = reinterpret_cast<const T*>(a.Data());
  return std::vector<T>(data, data + a.ElementLength());
}

}  // namespace

std::vector<int32_t> int_array(const Napi::Object& o, const char* name) {
  return typed_array<Napi::Int32Array, int32_t>(o, name, napi_int32_array, "an Int32Array");
}

namespace {

/// One of `names`, the enumeration's in its order; none for `automatic`.
template <class Format, class Names>
std::optional<Format> format(const Napi::Object& o, const char* name, const Names& names,
                             const std::string& automatic) {
  const std::string given = string(o, name);
  if (given == automatic) return std::nullopt;
  for (size_t i = 0; i < names.size(); i++)
    if (given == names[i]) return static_cast<Format>(i);
  refuse(o.Env(), name, "the name of a format");
}

}  // namespace

EngineOptions to_options(const Napi::Object& o) {
  EngineOptions options;
  options.path = string(o, "path");
  options.device = string(o, "device");
  options.weights = format<WeightFormat>(o, "weights", kWeightFormats, "auto");
  options.threads = integer(o, "threads", 0, 1024);
  options.isa = string(o, "isa");
  options.max_concurrent = integer(o, "maxConcurrent", 1, 4096);
  options.prefill_rows = integer(o, "prefillTokens");
  options.prefix_cache = boolean(o, "prefixCache");
  options.time_steps = boolean(o, "timeSteps");
  options.weight_cache.folder = string(o, "cacheFolder");
  options.weight_cache.limit = static_cast<uint64_t>(number(o, "cacheBytes", 0, 9007199254740991.0));
  options.kv_tokens = static_cast<int64_t>(number(o, "kvTokens", 0, 1e12));
  options.kv_bytes = static_cast<int64_t>(number(o, "kvBytes", 0, 1e15));
  options.kv_format = format<KvFormat>(o, "kvDtype", kKvFormats, "");
  options.draft.path = string(o, "draftPath");
  options.draft.weights = format<WeightFormat>(o, "draftWeights", kWeightFormats, "auto");
  options.draft.block_length = integer(o, "draftBlockLength", 0, kMaxBlockLength);
  options.draft.only_if_faster = boolean(o, "draftOnlyIfFaster");
  options.cuda_warpgroup_mma = boolean(o, "cudaWarpgroupMma");
  options.cuda_dependent_launch = boolean(o, "cudaDependentLaunch");
  options.cuda_wide_experts = boolean(o, "cudaWideExperts");
  return options;
}

namespace {

float real(const Napi::Object& o, const char* name) { return static_cast<float>(number(o, name, -FLT_MAX, FLT_MAX)); }

}  // namespace

Request to_request(const Napi::Object& o) {
  Request r;
  r.id = static_cast<uint64_t>(number(o, "id", 0, 9007199254740991.0));
  r.tokens = int_array(o, "tokens");
  r.max_tokens = integer(o, "maxTokens");
  r.block_length = integer(o, "blockLength");
  r.denoise.strategy = static_cast<Strategy>(integer(o, "strategy", 0, kStrategies - 1));
  r.denoise.steps = integer(o, "steps");
  r.denoise.threshold = real(o, "threshold");
  r.denoise.entropy_bound = real(o, "entropyBound");
  r.denoise.factor = real(o, "factor");
  r.temperature = real(o, "temperature");
  r.top_k = integer(o, "topK");
  r.top_p = real(o, "topP");
  r.min_p = real(o, "minP");
  r.repetition_penalty = real(o, "repetitionPenalty");
  r.presence_penalty = real(o, "presencePenalty");
  r.frequency_penalty = real(o, "frequencyPenalty");
  r.top_logprobs = integer(o, "topLogprobs", 0, kMaxTopLogprobs);
  const Napi::Value seed = o.Get("seed");
  if (!seed.IsBigInt()) refuse(o.Env(), "seed", "a bigint");
  bool lossless = false;
  r.seed = seed.As<Napi::BigInt>().Uint64Value(&lossless);
  r.confidence = boolean(o, "sampledConfidence") ? Confidence::sampled : Confidence::model;
  const Napi::Value stop = o.Get("stop");
  if (!stop.IsArray()) refuse(o.Env(), "stop", "a list of Uint8Array");
  const auto list = stop.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value v = list.Get(i);
    if (!v.IsTypedArray() || v.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
      refuse(o.Env(), "stop", "a list of Uint8Array");
    const auto bytes = v.As<Napi::Uint8Array>();
    r.stop.emplace_back(reinterpret_cast<const char*>(bytes.Data()), bytes.ElementLength());
  }
  r.stop_tokens = int_array(o, "stopTokens");
  r.suppress = int_array(o, "suppress");
  r.ignore_eos = boolean(o, "ignoreEos");
  r.min_tokens = integer(o, "minTokens");
  r.bias_ids = int_array(o, "biasIds");
  r.bias_values = typed_array<Napi::Float32Array, float>(o, "biasValues", napi_float32_array, "a Float32Array");
  r.drafts = boolean(o, "drafts");
  r.completion = integer(o, "answer");
  r.group = static_cast<uint64_t>(number(o, "group", 0, 9007199254740991.0));
  r.rank = number(o, "rank", -DBL_MAX, DBL_MAX);
  r.priority = integer(o, "priority", INT32_MIN, INT32_MAX);
  r.tenant = static_cast<uint64_t>(number(o, "tenant", 0, 9007199254740991.0));
  const double deadline = number(o, "deadlineMs", 0, 1e12);
  if (deadline > 0)
    r.deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(static_cast<int64_t>(deadline * 1000));
  r.salt = string(o, "salt");
  r.pin = boolean(o, "pin");
  if (o.Has("given")) r.given = int_array(o, "given");
  if (const Napi::Value form = o.Get("form"); !form.IsUndefined()) r.form = to_form(form);
  return r;
}

Napi::Value from_info(Napi::Env env, const Model& model) {
  const ModelConfig& config = model.config;
  auto o = Napi::Object::New(env);
  const auto set = [&](const char* name, auto value) { o.Set(name, value); };
  set("modelType", config.model_type);
  set("decoding", kDecodings[static_cast<size_t>(config.decoding)]);
  set("device", model.backend->device());
  set("cardProblem", model.cuda_unavailable);
  set("passedOver", model.weights.passed_over);
  set("isa", model.backend->isa());
  set("threads", double(model.backend->threads()));
  set("weights", name_of(model.format));
  set("parameters", double(model.weights.parameters));
  set("weightBytes", double(model.weights.bytes));
  set("layers", double(config.shape.layers));
  set("hiddenSize", double(config.shape.hidden));
  set("vocabSize", double(config.shape.vocabulary));
  set("contextLength", double(config.shape.context));
  set("blockLength", double(config.block_size));
  set("maskTokenId", double(config.mask_token_id));
  auto ends = Napi::Array::New(env);
  for (size_t i = 0; i < config.end_token_ids.size(); i++) ends.Set(uint32_t(i), double(config.end_token_ids[i]));
  set("endTokenIds", ends);
  auto kv = Napi::Object::New(env);
  kv.Set("dtype", name_of(model.cache.format));
  kv.Set("pages", double(model.cache.pages));
  kv.Set("tokens", double(model.cache.pages * kPageSlots));
  kv.Set("bytes", double(model.cache.pages) * double(model.page_bytes));
  set("kv", kv);
  return o;
}

Napi::Value from_records(Napi::Env env, EventBatch&& batch) {
  auto records = Napi::Float64Array::New(env, batch.records.size());
  if (!batch.records.empty()) std::memcpy(records.Data(), batch.records.data(), batch.records.size() * sizeof(double));
  auto errors = Napi::Array::New(env, batch.failures.size());
  for (size_t i = 0; i < batch.failures.size(); i++) {
    auto e = Napi::Object::New(env);
    e.Set("code", batch.failures[i].code);
    e.Set("message", batch.failures[i].message);
    errors.Set(uint32_t(i), e);
  }
  auto o = Napi::Object::New(env);
  o.Set("records", records);
  o.Set("errors", errors);
  return o;
}

Napi::Value from_stats(Napi::Env env, const EngineStats& s) {
  auto o = Napi::Object::New(env);
  const auto set = [&](const char* name, auto value) { o.Set(name, double(value)); };
  set("running", s.running);
  set("waiting", s.waiting);
  set("paused", s.paused);
  auto pages = Napi::Object::New(env);
  pages.Set("total", double(s.pages_total));
  pages.Set("free", double(s.pages_free));
  pages.Set("cached", double(s.pages_cached));
  pages.Set("active", double(s.pages_total - s.pages_free - s.pages_cached));
  pages.Set("pinned", double(s.pages_pinned));
  o.Set("pages", pages);
  set("steps", s.steps);
  set("rows", s.rows);
  set("sequences", s.sequences);
  set("maxSequences", s.max_sequences);
  set("forwards", s.forwards);
  set("filledTokens", s.filled_tokens);
  set("prefillTokens", s.prefill_tokens);
  set("recomputedTokens", s.recomputed_tokens);
  set("promptTokens", s.prompt_tokens);
  set("cachedTokens", s.cached_tokens);
  set("draftSteps", s.draft_steps);
  set("draftForwards", s.draft_forwards);
  set("draftedTokens", s.drafted_tokens);
  set("acceptedTokens", s.accepted_tokens);
  set("draftSeconds", s.draft_seconds);
  set("preemptions", s.preemptions);
  set("evictions", s.evictions);
  auto histogram = Napi::Array::New(env, s.tokens_per_forward.size());
  for (size_t k = 0; k < s.tokens_per_forward.size(); k++) histogram.Set(uint32_t(k), double(s.tokens_per_forward[k]));
  o.Set("tokensPerForward", histogram);
  auto finished = Napi::Object::New(env);
  for (size_t i = 0; i < kFinishReasons.size(); i++) finished.Set(kFinishReasons[i], double(s.finished[i]));
  finished.Set("error", double(s.failed));
  finished.Set("deadline", double(s.timed_out));
  o.Set("finished", finished);
  set("stepSeconds", s.step_seconds);
  set("schedulerSeconds", s.scheduler_seconds);
  auto seconds = Napi::Object::New(env);
  seconds.Set("prefill", s.seconds.prefill);
  seconds.Set("attention", s.seconds.attention);
  seconds.Set("gemm", s.seconds.gemm);
  seconds.Set("head", s.seconds.lm_head);
  seconds.Set("denoise", s.seconds.denoise);
  o.Set("seconds", seconds);
  o.Set("failure", s.failure);
  return o;
}

}  // namespace sdar::addon
