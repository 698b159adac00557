// Measurements and random checkpoints for the command line; lib/bench/binding.ts is the contract.

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "addon/convert.h"
#include "addon/extension.h"
#include "addon/task.h"
#include "bench/forward_bench.h"
#include "bench/shapes.h"
#include "util/error.h"

namespace sdar::addon {

namespace {

/// A bench and the lock that makes its calls take turns.
struct Shared {
  explicit Shared(std::unique_ptr<ForwardBench> b) : bench(std::move(b)) {}
  std::unique_ptr<ForwardBench> bench;
  std::mutex mutex;
};

Napi::Value to_array(Napi::Env env, const std::vector<double>& values) {
  auto array = Napi::Float64Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

/// What rounds of measurements gave, one number a round.
struct Rounds {
  struct AtContext {
    ForwardCost cost;
    std::vector<double> seconds, logits_seconds, single_seconds;
  };
  std::vector<AtContext> contexts;
  std::vector<double> read_bandwidth, multiply_rate, attention_rate;
  const char* instruction = "";
};

struct RunOptions {
  int32_t tokens;
  std::vector<int32_t> contexts;
  int32_t runs;
  bool logits, limits, single;
};

Rounds run(Shared& shared, const RunOptions& options) {
  const std::lock_guard lock(shared.mutex);
  ForwardBench& bench = *shared.bench;
  const WeightFormat format = bench.model().format;
  // What keys and values are multiplied with, whatever they are held in.
  const WeightFormat operands = bench.model().cache.format == KvFormat::f32 ? WeightFormat::f32 : WeightFormat::bf16;
  Rounds rounds;
  rounds.contexts.resize(options.contexts.size());
  for (int32_t i = 0; i < options.runs; i++) {
    if (options.limits) {
      rounds.read_bandwidth.push_back(bench.limits().read_bandwidth());
      rounds.multiply_rate.push_back(bench.limits().multiply_rate(format));
      rounds.attention_rate.push_back(bench.limits().multiply_rate(operands));
      rounds.instruction = bench.limits().multiply_instruction(format);
      // They have thrown the weights of a small model out of the cache.
      if (!options.contexts.empty()) bench.run(1, options.contexts[0], false);
    }
    for (size_t c = 0; c < options.contexts.size(); c++) {
      const auto time = [&](int32_t tokens, bool logits) { return bench.run(tokens, options.contexts[c], logits); };
      if (options.single) rounds.contexts[c].single_seconds.push_back(time(1, false));
      rounds.contexts[c].seconds.push_back(time(options.tokens, false));
      if (options.logits) rounds.contexts[c].logits_seconds.push_back(time(options.tokens, true));
    }
  }
  // Afterwards: by now it is known which experts were read.
  for (size_t c = 0; c < options.contexts.size(); c++)
    rounds.contexts[c].cost = bench.cost(options.tokens, options.contexts[c]);
  return rounds;
}

Napi::Value from_rounds(Napi::Env env, Rounds& rounds) {
  auto contexts = Napi::Array::New(env, rounds.contexts.size());
  for (uint32_t i = 0; i < rounds.contexts.size(); i++) {
    const Rounds::AtContext& at = rounds.contexts[i];
    auto o = Napi::Object::New(env);
    o.Set("seconds", to_array(env, at.seconds));
    o.Set("logitsSeconds", to_array(env, at.logits_seconds));
    o.Set("singleSeconds", to_array(env, at.single_seconds));
    o.Set("weightBytes", at.cost.weight_bytes);
    o.Set("kvBytes", at.cost.kv_bytes);
    o.Set("operations", at.cost.operations);
    o.Set("expertsPerLayer", at.cost.experts_per_layer);
    contexts.Set(i, o);
  }
  auto o = Napi::Object::New(env);
  o.Set("contexts", contexts);
  o.Set("readBandwidth", to_array(env, rounds.read_bandwidth));
  o.Set("multiplyRate", to_array(env, rounds.multiply_rate));
  o.Set("attentionRate", to_array(env, rounds.attention_rate));
  o.Set("instruction", rounds.instruction);
  return o;
}

std::vector<RecordedStep> to_steps(const Napi::Env& env, const Napi::Value& value) {
  if (!value.IsArray()) throw from_error(env, code::kInvalidOption, "steps must be a list");
  const auto list = value.As<Napi::Array>();
  std::vector<RecordedStep> steps;
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value item = list.Get(i);
    if (!item.IsObject()) throw from_error(env, code::kInvalidOption, "each step must be an object");
    const auto o = item.As<Napi::Object>();
    RecordedStep step{.tokens = int_array(o, "tokens"), .block_length = integer(o, "blockLength", 1, kMaxBlockLength)};
    for (int32_t offset : int_array(o, "masked")) {
      if (offset < 0 || offset >= step.block_length)
        throw from_error(env, code::kInvalidOption, "masked must hold offsets within the block");
      step.masked |= uint64_t{1} << offset;
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

constexpr napi_type_tag kTag{0x7364617262656e63, 0x9b6d1f0a52c84e37};

class NativeBench : public Napi::ObjectWrap<NativeBench> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeBench",
        {InstanceMethod<&NativeBench::info>("info"), InstanceMethod<&NativeBench::run>("run"),
         InstanceMethod<&NativeBench::compare>("compare"), InstanceMethod<&NativeBench::close>("close")});
  }
  explicit NativeBench(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeBench>(info) {
    info.This().As<Napi::Object>().TypeTag(&kTag);
  }

  void set(std::shared_ptr<Shared> shared) { shared_ = std::move(shared); }

 private:
  const std::shared_ptr<Shared>& shared(Napi::Env env) const {
    if (!shared_) throw from_error(env, code::kDisposed, "the bench is closed, or was not made by openBench");
    return shared_;
  }

  Napi::Value info(const Napi::CallbackInfo& info) { return from_info(info.Env(), shared(info.Env())->bench->model()); }

  Napi::Value run(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 1 || !info[0].IsObject()) throw from_error(env, code::kInvalidOption, "run takes options");
    const auto o = info[0].As<Napi::Object>();
    const RunOptions options{.tokens = integer(o, "tokens", 1),
                             .contexts = int_array(o, "contexts"),
                             .runs = integer(o, "runs", 1, 1e6),
                             .logits = boolean(o, "logits"),
                             .limits = boolean(o, "limits"),
                             .single = boolean(o, "single")};
    return Task<Rounds>::start(
        env, env.Undefined(),
        [shared = shared(env), options](const TaskControl&) { return addon::run(*shared, options); }, from_rounds);
  }

  /// compare(other, steps)
  Napi::Value compare(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 2 || !info[0].IsObject() || !info[0].As<Napi::Object>().CheckTypeTag(&kTag))
      throw from_error(env, code::kInvalidOption, "compare takes another NativeBench and a list of steps");
    auto mine = shared(env), theirs = Unwrap(info[0].As<Napi::Object>())->shared(env);
    if (mine == theirs) throw from_error(env, code::kInvalidOption, "compare takes another NativeBench");
    auto steps = to_steps(env, info[1]);
    return Task<Divergence>::start(
        env, env.Undefined(),
        [mine, theirs, steps = std::move(steps)](const TaskControl&) {
          const std::scoped_lock lock(mine->mutex, theirs->mutex);
          return mine->bench->compare(*theirs->bench, steps);
        },
        [](Napi::Env e, Divergence& total) -> Napi::Value {
          auto o = Napi::Object::New(e);
          o.Set("positions", double(total.positions));
          o.Set("kl", total.kl);
          o.Set("sameArgmax", double(total.same_argmax));
          return o;
        });
  }

  /// Frees the model when nothing runs on it any more.
  Napi::Value close(const Napi::CallbackInfo& info) {
    shared_.reset();
    return info.Env().Undefined();
  }

  std::shared_ptr<Shared> shared_;
};

BenchOptions to_bench_options(const Napi::Object& o) {
  BenchOptions options;
  options.engine = to_options(o);
  options.shape = string(o, "shape");
  options.layers = integer(o, "layers");
  options.seed = static_cast<uint64_t>(number(o, "randomSeed", 0, 9007199254740991.0));
  options.context = integer(o, "context", 0, 1 << 28);
  options.max_tokens = integer(o, "tokens", 1, 1 << 20);
  return options;
}

/// openBench(options, onProgress)
Napi::Value open_bench(const Napi::CallbackInfo& info, const std::shared_ptr<Napi::FunctionReference>& constructor) {
  Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsObject()) throw from_error(env, code::kInvalidOption, "openBench takes options");
  return Task<std::shared_ptr<Shared>>::start(
      env, info.Length() > 1 ? info[1] : env.Undefined(),
      [options = to_bench_options(info[0].As<Napi::Object>())](const TaskControl& control) {
        WeightHooks hooks;
        hooks.progress = control.report;
        hooks.cancelled = control.cancelled;
        return std::make_shared<Shared>(std::make_unique<ForwardBench>(options, std::move(hooks)));
      },
      [constructor](Napi::Env, std::shared_ptr<Shared>& shared) -> Napi::Value {
        const Napi::Object object = constructor->New({});
        NativeBench::Unwrap(object)->set(std::move(shared));
        return object;
      });
}

/// writeCheckpoint(options, onProgress)
Napi::Value write(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsObject())
    throw from_error(env, code::kInvalidOption, "writeCheckpoint takes options");
  const auto o = info[0].As<Napi::Object>();
  const std::string dtype = string(o, "dtype");
  if (dtype != "bf16" && dtype != "f32")
    throw from_error(env, code::kInvalidOption, "dtype is \"" + dtype + "\"; allowed: bf16, f32");
  WriteOptions options;
  options.dtype = dtype == "f32" ? DType::f32 : DType::bf16;
  options.seed = static_cast<uint64_t>(number(o, "randomSeed", 0, 9007199254740991.0));
  options.overwrite = boolean(o, "overwrite");
  return Task<WrittenCheckpoint>::start(
      env, info.Length() > 1 ? info[1] : env.Undefined(),
      [options, folder = string(o, "folder"), shape = string(o, "shape"), layers = integer(o, "layers"),
       threads = integer(o, "threads", 1, 1024)](const TaskControl& control) {
        WeightHooks hooks;
        hooks.progress = control.report;
        hooks.cancelled = control.cancelled;
        hooks.threads = threads;
        return write_checkpoint(folder, shape_config(shape, layers), options, hooks);
      },
      [](Napi::Env e, WrittenCheckpoint& written) -> Napi::Value {
        auto result = Napi::Object::New(e);
        result.Set("parameters", double(written.parameters));
        result.Set("bytes", double(written.bytes));
        result.Set("files", double(written.files));
        return result;
      });
}

/// Adds openBench and writeCheckpoint.
void define_bench(Napi::Env env, Napi::Object exports) {
  auto constructor = std::make_shared<Napi::FunctionReference>(Napi::Persistent(NativeBench::define(env)));
  constructor->SuppressDestruct();  // it goes with the environment
  exports.Set("openBench", Napi::Function::New(env, [constructor](const Napi::CallbackInfo& info) {
                return open_bench(info, constructor);
              }));
  exports.Set("writeCheckpoint", Napi::Function::New<write>(env));
}

const Extension extension{define_bench};

}  // namespace

}  // namespace sdar::addon
