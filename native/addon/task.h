// Work off the JavaScript thread whose end is a promise. Each has a thread of its own: what takes seconds must not hold
// up libuv's pool, which Node reads files with.
#pragma once
#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "addon/convert.h"
#include "util/error.h"

namespace sdar::addon {

using ReportProgress = std::function<void(int64_t done, int64_t total)>;

/// What the work has of its caller.
struct TaskControl {
  ReportProgress report;
  /// Asked for by the caller, or the environment ends.
  std::function<bool()> cancelled;
};

/// A thread and the way back from it. When the environment or the process ends (Worker.terminate, process.exit) the work
/// is cancelled, waited for a moment, and its result dropped.
class TaskThread {
 public:
  /// On the JavaScript thread; let go of there.
  struct Callbacks {
    std::function<void(Napi::Env, double done, double total)> progress;
    std::function<void(Napi::Env)> ended;  ///< once, unless the environment ends first
  };
  /// `body` runs on the new thread and must not throw; `stop`, if set, is called when the environment ends before it,
  /// maybe on another thread.
  /// Throws Error(OUT_OF_MEMORY) when no thread can be had.
  static void start(Napi::Env env, Callbacks callbacks, std::shared_ptr<std::atomic<bool>> cancelled,
                    std::function<void(const TaskControl&)> body, std::function<void()> stop);

 private:
  struct Shared;
  struct Running;
  static void on_call(napi_env env, napi_value, void* self, void*);
  static void on_cleanup(void* self);

  Callbacks callbacks_;
  std::shared_ptr<Shared> shared_;
  bool ended_ = false;
};

/// work(control) on a thread, then convert(env, result) for the promise.
template <class Result>
class Task {
 public:
  using Work = std::function<Result(const TaskControl&)>;
  using Convert = std::function<Napi::Value(Napi::Env, Result&)>;

  /// `on_progress` may be undefined. `stop` is called when the environment ends before the work.
  static Napi::Value start(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert,
                           std::function<void()> stop = {}) {
    return run(env, on_progress, std::move(work), std::move(convert), std::make_shared<std::atomic<bool>>(false),
               std::move(stop));
  }

  /// {promise, cancel}: cancel() makes `cancelled` of the control true.
  static Napi::Value start_cancellable(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert) {
    auto flag = std::make_shared<std::atomic<bool>>(false);
    auto handle = Napi::Object::New(env);
    handle.Set("cancel", Napi::Function::New(env, [flag](const Napi::CallbackInfo&) { *flag = true; }));
    handle.Set("promise", run(env, on_progress, std::move(work), std::move(convert), flag, {}));
    return handle;
  }

 private:
  /// What the thread leaves; nothing of JavaScript's.
  struct Outcome {
    std::optional<Result> result;
    std::string code = code::kInternal, message = "the work has no result";
    void fail(const std::string& error_code, const std::string& text) { code = error_code, message = text; }
  };

  static Napi::Value run(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert,
                         std::shared_ptr<std::atomic<bool>> cancelled, std::function<void()> stop) {
    const auto deferred = Napi::Promise::Deferred::New(env);
    const auto outcome = std::make_shared<Outcome>();
    TaskThread::Callbacks callbacks;
    if (on_progress.IsFunction()) {
      const auto function =
          std::make_shared<Napi::FunctionReference>(Napi::Persistent(on_progress.As<Napi::Function>()));
      callbacks.progress = [function](Napi::Env e, double done, double total) {
        function->Call({Napi::Number::New(e, done), Napi::Number::New(e, total)});
      };
    }
    callbacks.ended = [deferred, outcome, convert = std::move(convert)](Napi::Env e) {
      settle(e, deferred, *outcome, convert);
    };
    try {
      TaskThread::start(
          env, std::move(callbacks), std::move(cancelled),
          [outcome, work = std::move(work)](const TaskControl& control) { fill(*outcome, work, control); },
          std::move(stop));
    } catch (const Error& e) {
      deferred.Reject(from_error(env, e.code(), e.what()).Value());
    }
    return deferred.Promise();
  }

  static void fill(Outcome& outcome, const Work& work, const TaskControl& control) {
    try {
      outcome.result.emplace(work(control));
    } catch (const Error& e) {
      outcome.fail(e.code(), e.what());
    } catch (const std::bad_alloc&) {
      outcome.fail(code::kOutOfMemory, "the system has no memory left for this call");
    } catch (const std::exception& e) {
      outcome.fail(code::kInternal, e.what());
    }
  }

  /// Throws a Napi::Error only where the environment is ending.
  static void settle(Napi::Env env, const Napi::Promise::Deferred& deferred, Outcome& outcome, const Convert& convert) {
    try {
      if (outcome.result)
        deferred.Resolve(convert(env, *outcome.result));
      else
        deferred.Reject(from_error(env, outcome.code, outcome.message).Value());
    } catch (const Napi::Error& e) {
      deferred.Reject(e.Value());
    } catch (const std::exception& e) {
      deferred.Reject(from_error(env, code::kInternal, e.what()).Value());
    }
  }
};

}  // namespace sdar::addon
