// Work off the JavaScript thread whose end is a promise.
#pragma once
#include <napi.h>

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

/// work(report) on a libuv thread, then convert(env, result) for the promise. Owned by libuv once queued.
template <class Result>
class Task : public Napi::AsyncProgressWorker<Progress> {
 public:
  using Work = std::function<Result(const ReportProgress&)>;
  using Convert = std::function<Napi::Value(Napi::Env, Result&)>;

  /// `on_progress` may be undefined.
  static Napi::Value start(Napi::Env env, const Napi::Value& on_progress, Work work, Convert convert) {
    auto* task = new Task(env, std::move(work), std::move(convert));
    if (on_progress.IsFunction()) task->on_progress_ = Napi::Persistent(on_progress.As<Napi::Function>());
    const Napi::Promise promise = task->done_.Promise();
    task->Queue();
    return promise;
  }

  void Execute(const ExecutionProgress& progress) override {
    try {
      result_ = std::make_unique<Result>(work_([&](int64_t done, int64_t total) {
        const Progress p{double(done), double(total)};
        progress.Send(&p, 1);
      }));
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

  void fail(const std::string& code, const std::string& message) {
    code_ = code;
    message_ = message;
    SetError(message);
  }

  Work work_;
  Convert convert_;
  Napi::Promise::Deferred done_;
  Napi::FunctionReference on_progress_;
  std::unique_ptr<Result> result_;
  std::string code_, message_;
};

}  // namespace sdar::addon
