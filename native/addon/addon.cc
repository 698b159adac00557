// The addon: ids in, events out. No policy and no maths; everything per environment, so that it loads in worker
// threads.
#include <napi.h>

#include <atomic>
#include <memory>

#include "addon/convert.h"
#include "addon/devices.h"
#include "addon/extension.h"
#include "engine/engine.h"
#include "util/error.h"

namespace sdar::addon {

namespace {

/// Runs `body`, turning native exceptions into JavaScript ones.
template <class F>
auto guarded(Napi::Env env, F&& body) {
  try {
    return body();
  } catch (const Error& e) {
    throw from_error(env, e.code(), e.what());
  } catch (const std::bad_alloc&) {
    throw from_error(env, code::kOutOfMemory, "the system has no memory left for this call");
  }
}

/// One loaded engine. The native thread may outlive neither this object nor the environment: a cleanup hook closes it,
/// also when a worker thread is terminated.
class NativeEngine : public Napi::ObjectWrap<NativeEngine> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeEngine",
                       {InstanceMethod<&NativeEngine::set_token_bytes>("setTokenBytes"),
                        InstanceMethod<&NativeEngine::info>("info"), InstanceMethod<&NativeEngine::submit>("submit"),
                        InstanceMethod<&NativeEngine::signal<&Engine::abort>>("abort"),
                        InstanceMethod<&NativeEngine::signal<&Engine::pause>>("pause"),
                        InstanceMethod<&NativeEngine::signal<&Engine::resume>>("resume"),
                        InstanceMethod<&NativeEngine::take_events>("takeEvents"),
                        InstanceMethod<&NativeEngine::stats>("stats"), InstanceMethod<&NativeEngine::close>("close")});
  }

  explicit NativeEngine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeEngine>(info) {}
  ~NativeEngine() override { shut_down(); }

  void start(Napi::Env env, std::unique_ptr<Model> model, const EngineOptions& options, const Napi::Function& wake) {
    wake_ = Napi::ThreadSafeFunction::New(env, wake, "sdar events", 1, 1);
    wake_.Unref(env);  // an idle engine does not keep the process alive
    env_ = env;
    napi_add_env_cleanup_hook(env, on_cleanup, this);
    hooked_ = true;
    engine_ = std::make_shared<Engine>(std::move(model), options, [tsfn = wake_] { tsfn.NonBlockingCall(); });
  }

 private:
  static void on_cleanup(void* self) {
    auto* engine = static_cast<NativeEngine*>(self);
    engine->hooked_ = false;
    engine->shut_down();
  }

  void shut_down() {
    if (hooked_) napi_remove_env_cleanup_hook(env_, on_cleanup, this);
    hooked_ = false;
    if (!engine_) return;
    engine_->close();
    engine_.reset();
    wake_.Release();
  }

  Engine& engine(Napi::Env env) {
    if (!engine_ || closing_) throw from_error(env, code::kDisposed, "the engine has been disposed");
    return *engine_;
  }

  Napi::Value set_token_bytes(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 2 || !info[0].IsTypedArray() || !info[1].IsTypedArray() ||
        info[0].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array ||
        info[1].As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array)
      throw from_error(env, code::kInvalidOption, "setTokenBytes takes a Uint8Array and a Uint32Array");
    const auto bytes = info[0].As<Napi::Uint8Array>();
    const auto offsets = info[1].As<Napi::Uint32Array>();
    TokenBytes table{{bytes.Data(), bytes.Data() + bytes.ElementLength()},
                     {offsets.Data(), offsets.Data() + offsets.ElementLength()}};
    uint32_t last = 0;
    for (uint32_t offset : table.offsets) {
      if (offset < last || offset > table.bytes.size())
        throw from_error(env, code::kInvalidOption, "setTokenBytes: offsets must ascend within the bytes");
      last = offset;
    }
    engine(env).set_token_bytes(std::move(table));
    return env.Undefined();
  }

  Napi::Value info(const Napi::CallbackInfo& info) { return from_info(info.Env(), engine(info.Env()).model()); }

  Napi::Value submit(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 1 || !info[0].IsObject()) throw from_error(env, code::kInvalidOption, "submit takes a request");
    guarded(env, [&] { engine(env).submit(to_request(info[0].As<Napi::Object>())); });
    if (live_++ == 0) wake_.Ref(env);
    return env.Undefined();
  }

  /// abort, pause or resume a request
  template <void (Engine::*send)(uint64_t)>
  Napi::Value signal(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 1 || !info[0].IsNumber())
      throw from_error(env, code::kInvalidOption, "abort, pause and resume take a request id");
    (engine(env).*send)(static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
    return env.Undefined();
  }

  Napi::Value take_events(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!engine_) return from_events(env, {});
    EventBatch batch = engine_->take_events();
    const int64_t before = live_;
    for (size_t i = 0; i < batch.records.size(); i += 3 + size_t(batch.records[i + 2]))
      live_ -= batch.records[i] == EventBuffer::kFinished || batch.records[i] == EventBuffer::kFailed;
    if (before > 0 && live_ == 0) wake_.Unref(env);
    return from_events(env, std::move(batch));
  }

  Napi::Value stats(const Napi::CallbackInfo& info) { return from_stats(info.Env(), engine(info.Env()).stats()); }

  /// Joins the native thread off the JavaScript thread, then frees the model and lets the process end.
  Napi::Value close(const Napi::CallbackInfo& info) {
    struct CloseWorker : Napi::AsyncWorker {
      CloseWorker(const Napi::CallbackInfo& info, NativeEngine& owner)
          : Napi::AsyncWorker(info.Env()),
            engine(owner.engine_),
            owner(owner),
            keep(Napi::Persistent(info.This().As<Napi::Object>())),
            done(Napi::Promise::Deferred::New(info.Env())) {}
      void Execute() override { engine->close(); }
      void OnOK() override {
        engine.reset();
        owner.shut_down();
        done.Resolve(Env().Undefined());
      }
      std::shared_ptr<Engine> engine;
      NativeEngine& owner;
      Napi::ObjectReference keep;
      Napi::Promise::Deferred done;
    };
    closing_ = true;
    if (!engine_) {
      auto done = Napi::Promise::Deferred::New(info.Env());
      done.Resolve(info.Env().Undefined());
      return done.Promise();
    }
    auto* worker = new CloseWorker(info, *this);
    const Napi::Promise promise = worker->done.Promise();
    worker->Queue();
    return promise;
  }

  std::shared_ptr<Engine> engine_;
  Napi::ThreadSafeFunction wake_;
  napi_env env_ = nullptr;
  bool hooked_ = false;
  bool closing_ = false;
  int64_t live_ = 0;  // requests whose end JavaScript has not taken yet
};

using Progress = std::pair<double, double>;

/// Loads on a libuv thread. Owned by libuv once queued.
class LoadWorker : public Napi::AsyncProgressWorker<Progress> {
 public:
  LoadWorker(Napi::Env env, EngineOptions options, const Napi::Function& on_progress, const Napi::Function& on_wake)
      : Napi::AsyncProgressWorker<Progress>(env),
        options_(std::move(options)),
        on_progress_(Napi::Persistent(on_progress)),
        on_wake_(Napi::Persistent(on_wake)),
        done_(Napi::Promise::Deferred::New(env)),
        cancelled_(std::make_shared<std::atomic<bool>>(false)) {}

  Napi::Promise promise() { return done_.Promise(); }
  std::shared_ptr<std::atomic<bool>> cancelled() { return cancelled_; }

  void Execute(const ExecutionProgress& progress) override {
    try {
      WeightHooks hooks;
      hooks.progress = [&](int64_t done, int64_t total) {
        const Progress p{double(done), double(total)};
        progress.Send(&p, 1);
      };
      hooks.cancelled = [flag = cancelled_] { return flag->load(); };
      model_ = load_model(options_, std::move(hooks));
    } catch (const Error& e) {
      failure_ = {e.code(), e.what()};
      SetError(e.what());
    } catch (const std::bad_alloc&) {
      failure_ = {code::kOutOfMemory, "the system has no memory left for " + options_.path};
      SetError(failure_.message);
    } catch (const std::exception& e) {
      failure_ = {code::kInternal, e.what()};
      SetError(failure_.message);
    }
  }

  void OnProgress(const Progress* progress, size_t count) override {
    if (count == 0) return;
    Napi::HandleScope scope(Env());
    on_progress_.Call(
        {Napi::Number::New(Env(), progress[count - 1].first), Napi::Number::New(Env(), progress[count - 1].second)});
  }

  void OnOK() override {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    try {
      const Napi::Object object = env.GetInstanceData<Napi::FunctionReference>()->New({});
      NativeEngine::Unwrap(object)->start(env, std::move(model_), options_, on_wake_.Value());
      done_.Resolve(object);
    } catch (const Napi::Error& e) {
      done_.Reject(e.Value());
    } catch (const std::exception& e) {
      done_.Reject(from_error(env, code::kInternal, e.what()).Value());
    }
  }

  void OnError(const Napi::Error&) override {
    Napi::HandleScope scope(Env());
    done_.Reject(from_error(Env(), failure_.code, failure_.message).Value());
  }

 private:
  EngineOptions options_;
  Napi::FunctionReference on_progress_;
  Napi::FunctionReference on_wake_;
  Napi::Promise::Deferred done_;
  std::shared_ptr<std::atomic<bool>> cancelled_;
  std::unique_ptr<Model> model_;
  Failure failure_;
};

Napi::Value load(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[0].IsObject() || !info[1].IsFunction() || !info[2].IsFunction())
    throw from_error(env, code::kInvalidOption, "load takes options, onProgress and onWake");
  auto* worker = new LoadWorker(env, to_options(info[0].As<Napi::Object>()), info[1].As<Napi::Function>(),
                                info[2].As<Napi::Function>());
  auto handle = Napi::Object::New(env);
  handle.Set("promise", worker->promise());
  handle.Set("cancel",
             Napi::Function::New(env, [flag = worker->cancelled()](const Napi::CallbackInfo&) { *flag = true; }));
  worker->Queue();
  return handle;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Napi::FunctionReference(Napi::Persistent(NativeEngine::define(env))));
  exports.Set("load", Napi::Function::New<load>(env));
  define_devices(env, exports);
  Extension::define_all(env, exports);
  return exports;
}

}  // namespace

}  // namespace sdar::addon

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return sdar::addon::init(env, exports); }
NODE_API_MODULE(sdar_node, init_addon)
