#include "addon/task.h"

#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "util/machine.h"

namespace sdar::addon {
namespace {

constexpr std::chrono::seconds kPatience{2};  // with work that is cancelled while the environment ends

/// Signals are the main thread's; a file beyond the limit of its size is an error to handle, not the end.
void block_signals() {
  sigset_t all;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace

/// What both threads see.
struct TaskThread::Shared {
  napi_threadsafe_function function = nullptr;
  std::shared_ptr<std::atomic<bool>> cancelled;
  std::function<void()> stop;

  std::mutex mutex;
  std::condition_variable changed;
  bool gone = false;     // the environment; the function must not be called any more
  bool ended = false;    // the work
  bool pending = false;  // the progress is not told yet
  double done = 0, total = 0;

  /// With the mutex held.
  void wake() {
    if (!gone) napi_call_threadsafe_function(function, nullptr, napi_tsfn_nonblocking);
  }
  void cancel() {
    *cancelled = true;
    if (stop) stop();
    const std::lock_guard lock(mutex);
    gone = true;
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, kPatience, [&] { return ended; });
  }
  void report(int64_t done_now, int64_t total_now) {
    const std::lock_guard lock(mutex);
    done = static_cast<double>(done_now), total = static_cast<double>(total_now);
    if (!std::exchange(pending, true)) wake();
  }
};

/// All tasks, for the end of the process: process.exit() leaves an environment's cleanup hooks out.
struct TaskThread::Running {
  std::mutex mutex;
  std::vector<std::weak_ptr<Shared>> tasks;

  static Running& all() {
    static auto* running = new Running;  // lives as long as threads may
    return *running;
  }
  static void add(const std::shared_ptr<Shared>& task) {
    static const int registered = std::atexit(end);
    (void)registered;
    const std::lock_guard lock(all().mutex);
    std::erase_if(all().tasks, [](const auto& other) { return other.expired(); });
    all().tasks.push_back(task);
  }
  static void end() {
    std::vector<std::shared_ptr<Shared>> left;
    {
      const std::lock_guard lock(all().mutex);
      for (const auto& task : all().tasks)
        if (auto still = task.lock()) left.push_back(std::move(still));
    }
    for (const auto& task : left) task->cancel();
    for (const auto& task : left) task->wait();
  }
};

void TaskThread::start(Napi::Env env, Callbacks callbacks, std::shared_ptr<std::atomic<bool>> cancelled,
                       std::function<void(const TaskControl&)> body, std::function<void()> stop) {
  keep_loaded();
  const auto shared = std::make_shared<Shared>();
  shared->cancelled = std::move(cancelled);
  auto self = std::make_unique<TaskThread>();
  self->callbacks_ = std::move(callbacks);
  self->shared_ = shared;
  shared->stop = std::move(stop);
  Running::add(shared);
  const auto destroy = [](napi_env, void* task, void*) { delete static_cast<TaskThread*>(task); };
  if (napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "sdar task"), 0, 1, self.get(),
                                      destroy, self.get(), on_call, &shared->function) != napi_ok)
    throw Error(code::kInternal, "no way back from a new thread could be made");
  // After the function, so that it is called before the function goes.
  TaskThread* task = self.release();
  napi_add_env_cleanup_hook(env, on_cleanup, task);
  try {
    std::thread([shared, body = std::move(body)]() mutable {
      block_signals();
      body({[&](int64_t done, int64_t total) { shared->report(done, total); },
            [&] { return shared->cancelled->load(std::memory_order_relaxed); }});
      body = nullptr;  // what it holds goes before anyone hears of the end
      const std::lock_guard lock(shared->mutex);
      shared->ended = true;
      shared->wake();
      shared->changed.notify_all();
    }).detach();
  } catch (const std::system_error&) {
    task->ended_ = shared->ended = true;
    napi_remove_env_cleanup_hook(env, on_cleanup, task);
    napi_release_threadsafe_function(shared->function, napi_tsfn_abort);
    throw Error(code::kOutOfMemory, "the system gives no more threads");
  }
}

void TaskThread::on_call(napi_env env, napi_value, void* context, void*) {
  auto* self = static_cast<TaskThread*>(context);
  if (!env || self->ended_) return;
  Shared& shared = *self->shared_;
  double done, total;
  bool report;
  {
    const std::lock_guard lock(shared.mutex);
    report = std::exchange(shared.pending, false);
    self->ended_ = shared.ended;
    done = shared.done, total = shared.total;
  }
  const bool ended = self->ended_;
  if (ended) napi_remove_env_cleanup_hook(env, on_cleanup, self);
  const Napi::HandleScope scope(env);
  try {
    try {
      if (report && self->callbacks_.progress) self->callbacks_.progress(env, done, total);
    } catch (const Napi::Error& e) {
      e.ThrowAsJavaScriptException();
    }
    if (ended) self->callbacks_.ended(env);
  } catch (const Napi::Error&) {
    // A worker that is terminated runs no more JavaScript: its promise is nobody's.
  }
  if (ended) napi_release_threadsafe_function(shared.function, napi_tsfn_release);
}

void TaskThread::on_cleanup(void* context) {
  const std::shared_ptr<Shared> shared = static_cast<TaskThread*>(context)->shared_;
  shared->cancel();
  shared->wait();
}

}  // namespace sdar::addon
