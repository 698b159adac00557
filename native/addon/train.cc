// Training for lib/train; lib/train/binding.ts is the contract.

#include <array>
#include <cmath>
#include <memory>
#include <mutex>
#include <utility>

#include "addon/convert.h"
#include "addon/extension.h"
#include "addon/task.h"
#include "train/run.h"
#include "util/error.h"

namespace sdar::addon {
namespace {

using train::RunOptions;
using train::RunReport;

/// A run and the lock that makes its calls take turns.
struct Shared {
  Shared(const RunOptions& options, const std::function<bool()>& cancelled) : run(options, cancelled) {}
  train::Run run;
  std::mutex mutex;
};

/// The index of a name among those of an enumeration.
template <class Names>
size_t named(const Napi::Object& o, const char* field, const std::string& value, const Names& names) {
  std::string allowed;
  for (size_t i = 0; i < names.size(); i++) {
    if (value == names[i]) return i;
    allowed += std::string(i ? ", " : "") + names[i];
  }
  throw from_error(o.Env(), code::kInvalidOption, std::string(field) + " is \"" + value + "\"; allowed: " + allowed);
}

constexpr double kExact = 9007199254740991.0;  // integers up to here are exact in a double

RunOptions to_training(const Napi::Object& o) {
  RunOptions options;
  options.model = string(o, "model");
  options.parent = string(o, "parent");
  options.samples = string(o, "samples");
  options.folder = string(o, "folder");
  options.recipe.objective =
      static_cast<train::Objective>(named(o, "objective", string(o, "objective"), train::kObjectives));
  options.recipe.blocks = int_array(o, "blocks");
  options.recipe.views = integer(o, "views", 1, 64);
  options.recipe.growth = boolean(o, "growth");
  options.recipe.complementary = boolean(o, "complementary");
  options.recipe.full_mask = boolean(o, "fullMask");
  options.recipe.suffix = number(o, "suffix", 0, 1);
  options.recipe.pad_id = integer(o, "padId", -1);
  train::TrainSettings& settings = options.settings;
  settings.optimizer =
      static_cast<train::OptimizerKind>(named(o, "optimizer", string(o, "optimizer"), train::kOptimizers));
  options.format = static_cast<train::Format>(named(o, "compute", string(o, "compute"), train::kFormats));
  settings.muon.momentum = number(o, "momentum", 0, 1);
  settings.ema = number(o, "ema", 0, 1);
  settings.adamw.beta1 = number(o, "beta1", 0, 1);
  settings.adamw.beta2 = number(o, "beta2", 0, 1);
  settings.adamw.epsilon = number(o, "epsilon", 0, 1);
  settings.adamw.weight_decay = number(o, "weightDecay", 0, 1e3);
  settings.schedule.peak = number(o, "learningRate", 0, 1);
  settings.schedule.decay = static_cast<train::Decay>(named(o, "decay", string(o, "decay"), train::kDecays));
  settings.clip = number(o, "clip", 0, 1e30);
  settings.batches = integer(o, "accumulate", 1);
  settings.seed = static_cast<uint64_t>(number(o, "seed", 0, kExact));
  options.warmup = number(o, "warmup", 0, 1);
  options.plan.rows = integer(o, "rows", 1);
  options.plan.epochs = integer(o, "epochs", 1);
  options.plan.tokens = static_cast<int64_t>(number(o, "tokens", 0, kExact));
  options.plan.held_out = number(o, "heldOut", 0, 1);
  const std::string activations = string(o, "activations");
  if (activations != "auto")
    options.activations =
        static_cast<train::Activations>(named(o, "activations", activations, std::array{"recompute", "keep"}));
  options.threads = integer(o, "threads", 0, 1024);
  if (const int32_t rank = integer(o, "loraRank", 0); rank > 0) {
    options.lora = train::LoraSettings{
        .rank = rank, .alpha = number(o, "loraAlpha", 0, 1e6), .targets = {}, .tensors = {}, .embedding_rows = {}};
    for (const int32_t target : int_array(o, "loraTargets")) {
      if (target < 0 || target >= static_cast<int32_t>(train::kLoraTargets.size()))
        throw from_error(o.Env(), code::kInvalidOption, "loraTargets must hold indices of targets");
      options.lora->targets.push_back(static_cast<train::LoraTarget>(target));
    }
    options.lora->frozen = boolean(o, "loraBf16") ? DType::bf16 : DType::f32;
  }
  return options;
}

Napi::Value from_training(Napi::Env env, const train::Run& run) {
  auto o = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { o.Set(name, value); };
  set("parameters", double(run.parameters()));
  set("trained", double(run.trained()));
  set("samples", double(run.data().size()));
  set("tokens", double(run.data().tokens()));
  set("answerTokens", double(run.data().answer_tokens()));
  set("heldOutSamples", double(run.plan().held_out().size()));
  set("mostRows", double(run.plan().most_rows()));
  set("steps", double(run.steps()));
  set("stepsDone", double(run.trainer().steps_done()));
  set("memoryBytes", double(run.memory().total()));
  o.Set("memory", run.memory().text());
  set("threads", double(run.compute().threads()));
  return o;
}

Napi::Value from_report(Napi::Env env, const RunReport& report) {
  auto o = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { o.Set(name, value); };
  set("step", double(report.step.step));
  set("loss", report.step.loss);
  set("norm", report.step.norm);
  set("rate", report.step.rate);
  set("rows", double(report.rows));
  set("tokens", double(report.tokens));
  set("answerTokens", double(report.answer_tokens));
  set("seconds", report.seconds);
  return o;
}

Napi::Value nothing(Napi::Env env, bool&) { return env.Undefined(); }

class NativeTraining : public Napi::ObjectWrap<NativeTraining> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeTraining",
        {InstanceMethod<&NativeTraining::info>("info"), InstanceMethod<&NativeTraining::step>("step"),
         InstanceMethod<&NativeTraining::evaluate>("evaluate"), InstanceMethod<&NativeTraining::save>("save"),
         InstanceMethod<&NativeTraining::write>("write"), InstanceMethod<&NativeTraining::close>("close")});
  }
  explicit NativeTraining(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeTraining>(info) {}

  void set(std::shared_ptr<Shared> shared) { shared_ = std::move(shared); }

 private:
  const std::shared_ptr<Shared>& shared(Napi::Env env) const {
    if (!shared_) throw from_error(env, code::kDisposed, "the training is closed, or was not made by openTraining");
    return shared_;
  }

  /// While no other call is under way.
  Napi::Value info(const Napi::CallbackInfo& info) {
    const std::lock_guard lock(shared(info.Env())->mutex);
    return from_training(info.Env(), shared_->run);
  }

  Napi::Value step(const Napi::CallbackInfo& info) {
    return Task<RunReport>::start(
        info.Env(), info.Env().Undefined(),
        [shared = shared(info.Env())](const TaskControl&) {
          const std::lock_guard lock(shared->mutex);
          return shared->run.step();
        },
        [](Napi::Env env, RunReport& report) { return from_report(env, report); });
  }

  Napi::Value evaluate(const Napi::CallbackInfo& info) {
    return Task<double>::start_cancellable(
        info.Env(), info.Env().Undefined(),
        [shared = shared(info.Env())](const TaskControl& control) {
          const std::lock_guard lock(shared->mutex);
          return shared->run.evaluate(control.cancelled);
        },
        [](Napi::Env env, double& loss) -> Napi::Value { return Napi::Number::New(env, loss); });
  }

  Napi::Value save(const Napi::CallbackInfo& info) {
    return Task<bool>::start(
        info.Env(), info.Env().Undefined(),
        [shared = shared(info.Env())](const TaskControl&) {
          const std::lock_guard lock(shared->mutex);
          shared->run.save();
          return true;
        },
        nothing);
  }

  /// write({folder, dtype})
  Napi::Value write(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 1 || !info[0].IsObject()) throw from_error(env, code::kInvalidOption, "write takes options");
    const auto o = info[0].As<Napi::Object>();
    const std::string dtype = string(o, "dtype");
    if (dtype != "bf16" && dtype != "f32")
      throw from_error(env, code::kInvalidOption, "dtype is \"" + dtype + "\"; allowed: bf16, f32");
    return Task<bool>::start(
        env, env.Undefined(),
        [shared = shared(env), folder = string(o, "folder"), dtype](const TaskControl& control) {
          const std::lock_guard lock(shared->mutex);
          WeightHooks hooks;
          hooks.cancelled = control.cancelled;
          hooks.threads = shared->run.compute().threads();
          shared->run.write(folder, dtype == "f32" ? DType::f32 : DType::bf16, hooks);
          return true;
        },
        nothing);
  }

  /// Frees it when nothing runs on it any more.
  Napi::Value close(const Napi::CallbackInfo& info) {
    shared_.reset();
    return info.Env().Undefined();
  }

  std::shared_ptr<Shared> shared_;
};

/// Adds openTraining(options).
void define_training(Napi::Env env, Napi::Object exports) {
  auto constructor = std::make_shared<Napi::FunctionReference>(Napi::Persistent(NativeTraining::define(env)));
  constructor->SuppressDestruct();  // it goes with the environment
  exports.Set("openTraining", Napi::Function::New(env, [constructor](const Napi::CallbackInfo& info) {
                Napi::Env e = info.Env();
                if (info.Length() < 1 || !info[0].IsObject())
                  throw from_error(e, code::kInvalidOption, "openTraining takes options");
                return Task<std::shared_ptr<Shared>>::start_cancellable(
                    e, e.Undefined(),
                    [options = to_training(info[0].As<Napi::Object>())](const TaskControl& control) {
                      return std::make_shared<Shared>(options, control.cancelled);
                    },
                    [constructor](Napi::Env, std::shared_ptr<Shared>& shared) -> Napi::Value {
                      const Napi::Object object = constructor->New({});
                      NativeTraining::Unwrap(object)->set(std::move(shared));
                      return object;
                    });
              }));
}

const Extension extension{define_training};

}  // namespace
}  // namespace sdar::addon
