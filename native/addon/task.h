// Work off the JavaScript thread whose end is a promise.
#pragma once
#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "addon/convert.h"
#include "util/error.h"

namespace sdar::addon {

using Progress = std::pair<double, double>;
using ReportProgress = std::function<void(int64_t done, int64_t total)>;

/// What the work has of its caller.
struct TaskControl {
  ReportProgress report;
  std::function<bool()> cancelled;
};

/// work(control) on a libuv thread, then convert(env, result) for the promise. Owned by libuv once queued.
template <class Result>
class Task : public Napi::AsyncProgressWorker<Progress> {
 public:
  using Work = std::function<Result(const TaskControl&)>;
  using Convert = std::function<Napi::Value(Napi::Env, Result&)>;

  /// `on_progress` may be undefined.
  static Napi::Value start(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert) {
    return queue(env, on_progress, std::move(work), std::move(convert))->done_.Promise();
  }

  /// {promise, cancel}: cancel() makes `cancelled` of the control true.
  static Napi::Value start_cancellable(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert) {
    const Task* task = queue(env, on_progress, std::move(work), std::move(convert));
    auto handle = Napi::Object::New(env);
    handle.Set("promise", task->done_.Promise());
    handle.Set("cancel",
               Napi::Function::New(env, [flag = task->cancelled_](const Napi::CallbackInfo&) { *flag = true; }));
    return handle;
  }

  void Execute(const ExecutionProgress& progress) override {
    try {
      const auto report = [&](int64_t done, int64_t total) {
        const Progress p{double(done), double(total)};
        progress.Send(&p, 1);
      };
      result_ = std::make_unique<Result>(work_({report, [flag = cancelled_] { return flag->load(); }}));
    } catch (const Error& e) {
      fail(e.code(), e.what());
    } catch (const std::bad_alloc&) {
      fail(code::kOutOfMemory, "the system has no memory left for this call");
    } catch (const std::exception& e) {
      fail(code::kInternal, e.what());
    }
  }

  void OnProgress(const Progress* progress, size_t count) override {
    if (count == 0 || on_progress_.IsEmpty()) return;
    Napi::HandleScope scope(Env());
    const auto& [done, total] = progress[count - 1];
    on_progress_.Call({Napi::Number::New(Env(), done), Napi::Number::New(Env(), total)});
  }

  void OnOK() override {
    Napi::HandleScope scope(Env());
    try {
      done_.Resolve(convert_(Env(), *result_));
    } catch (const Napi::Error& e) {
      done_.Reject(e.Value());
    } catch (const std::exception& e) {
      done_.Reject(from_error(Env(), code::kInternal, e.what()).Value());
    }
  }
  void OnError(const Napi::Error&) override {
    Napi::HandleScope scope(Env());
    done_.Reject(from_error(Env(), code_, message_).Value());
  }

 private:
  Task(Napi::Env env, Work work, Convert convert)
      : Napi::AsyncProgressWorker<Progress>(env),
        work_(std::move(work)),
        convert_(std::move(convert)),
        done_(Napi::Promise::Deferred::New(env)) {}

  static Task* queue(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert) {
    auto* task = new Task(env, std::move(work), std::move(convert));
    if (on_progress.IsFunction()) task->on_progress_ = Napi::Persistent(on_progress.As<Napi::Function>());
    task->Queue();
    return task;
  }

  void fail(const std::string& code, const std::string& message) {
    code_ = code;
    message_ = message;
    SetError(message);
  }

  Work work_;
  Convert convert_;
  Napi::Promise::Deferred done_;
  Napi::FunctionReference on_progress_;
  std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<Result> result_;
  std::string code_, message_;
};

}  // namespace sdar::addon
