// The addon: ids in, events out. No policy and no maths; everything per environment, so that it loads in worker
// threads.
#include <napi.h>

#include <chrono>
#include <future>
#include <memory>
#include <utility>
#include <variant>

#include "addon/convert.h"
#include "addon/extension.h"
#include "addon/form.h"
#include "addon/task.h"
#include "engine/engine.h"
#include "util/error.h"
#include "util/machine.h"

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

/// Keeps `value` for a closure, which is copied.
template <class Value>
auto shared_reference(const Value& value) {
  return std::make_shared<Napi::Reference<Value>>(Napi::Persistent(value));
}

/// Packed weights on their way to a file.
struct CacheWriting {
  size_t bytes = 0;
  std::shared_future<bool> done = {};

  /// So that a process that ends right after its engine has a short file written, too.
  void wait_if_short() const {
    constexpr size_t kShort = 256 << 20;
    if (done.valid() && bytes <= kShort) done.wait_for(std::chrono::seconds(1));
  }
};

/// One loaded engine. The native thread may outlive neither this object nor the environment: a cleanup hook closes it,
/// also when a worker thread is terminated.
class NativeEngine : public Napi::ObjectWrap<NativeEngine> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "NativeEngine",
        {InstanceMethod<&NativeEngine::set_token_bytes>("setTokenBytes"),
         InstanceMethod<&NativeEngine::set_end_tokens>("setEndTokens"), InstanceMethod<&NativeEngine::info>("info"),
         InstanceMethod<&NativeEngine::submit>("submit"), InstanceMethod<&NativeEngine::compile_form>("compileForm"),
         InstanceMethod<&NativeEngine::set_splits>("setSplits"),
         InstanceMethod<&NativeEngine::signal<&Engine::abort>>("abort"),
         InstanceMethod<&NativeEngine::signal<&Engine::pause>>("pause"),
         InstanceMethod<&NativeEngine::signal<&Engine::resume>>("resume"),
         InstanceMethod<&NativeEngine::take_records>("takeRecords"), InstanceMethod<&NativeEngine::stats>("stats"),
         InstanceMethod<&NativeEngine::close>("close")});
  }

  explicit NativeEngine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeEngine>(info) {}
  ~NativeEngine() override { shut_down(); }

  void start(Napi::Env env, std::unique_ptr<Model> model, std::unique_ptr<Model> draft, const EngineOptions& options,
             const Napi::Function& wake, CacheWriting writing) {
    writing_ = std::move(writing);
    wake_ = Napi::ThreadSafeFunction::New(env, wake, "sdar events", 1, 1);
    wake_.Unref(env);  // an idle engine does not keep the process alive
    env_ = env;
    napi_add_env_cleanup_hook(env, on_cleanup, this);
    hooked_ = true;
    engine_ = std::make_shared<Engine>(
        std::move(model), options, [tsfn = wake_] { tsfn.NonBlockingCall(); }, std::move(draft));
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
    if (!engine_ || closing_) throw from_error(env, code::kDisposed, "the engine was disposed of");
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

  Napi::Value set_end_tokens(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (info.Length() < 1 || !info[0].IsTypedArray() ||
        info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
      throw from_error(env, code::kInvalidOption, "setEndTokens takes an Int32Array");
    const auto ids = info[0].As<Napi::Int32Array>();
    engine(env).set_end_ids({ids.Data(), ids.Data() + ids.ElementLength()});
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

  Napi::Value compile_form(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] { return addon::compile_form(info, engine(info.Env()).forms()); });
  }

  Napi::Value set_splits(const Napi::CallbackInfo& info) {
    addon::set_splits(info);
    return info.Env().Undefined();
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

  Napi::Value take_records(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!engine_) return from_records(env, {});
    EventBatch batch = engine_->take_events();
    const int64_t before = live_;
    live_ -= batch.ended;
    if (before > 0 && live_ == 0) wake_.Unref(env);
    return from_records(env, std::move(batch));
  }

  Napi::Value stats(const Napi::CallbackInfo& info) { return from_stats(info.Env(), engine(info.Env()).stats()); }

  /// Joins the native thread off the JavaScript thread, then frees the model and lets the process end.
  Napi::Value close(const Napi::CallbackInfo& info) {
    closing_ = true;
    return Task<std::monostate>::start(
        info.Env(), info.Env().Undefined(),
        [engine = engine_, writing = writing_](const TaskControl&) {
          if (engine) engine->close();
          writing.wait_if_short();
          return std::monostate{};
        },
        [this, keep = shared_reference(info.This().As<Napi::Object>())](Napi::Env env, std::monostate&) {
          shut_down();
          return env.Undefined();
        });
  }

  std::shared_ptr<Engine> engine_;
  Napi::ThreadSafeFunction wake_;
  napi_env env_ = nullptr;
  bool hooked_ = false;
  bool closing_ = false;
  CacheWriting writing_;
  int64_t live_ = 0;  // requests whose end JavaScript has not taken yet
};

using CacheWrites = std::vector<std::shared_ptr<PackedCacheWrite>>;

/// A model with its draft, if there is one, and what is still to be written of them.
struct Loaded {
  std::unique_ptr<Model> draft;
  std::unique_ptr<Model> model;
  CacheWrites writes;
};

Loaded load_from(const EngineOptions& options, const TaskControl& control) {
  try {
    Loaded loaded;
    WeightHooks hooks;
    hooks.cancelled = control.cancelled;
    hooks.write_later = [&](std::shared_ptr<PackedCacheWrite> write) { loaded.writes.push_back(std::move(write)); };
    loaded.draft = load_draft(options, hooks);
    hooks.progress = control.report;
    loaded.model = load_model(options, std::move(hooks), loaded.draft.get());
    return loaded;
  } catch (const std::bad_alloc&) {
    throw Error(code::kOutOfMemory, "the system has no memory left for " + options.path);
  }
}

/// Writes beside what the engine does, and keeps the process until it is done; ends at once with the environment.
CacheWriting write_in_background(Napi::Env env, const CacheWrites& writes) {
  if (writes.empty()) return {};
  const auto done = std::make_shared<std::promise<bool>>();
  CacheWriting writing{.done = done->get_future().share()};
  for (const auto& write : writes) writing.bytes += write->bytes();
  Task<bool>::start(
      env, env.Undefined(),
      [writes, done](const TaskControl&) {
        run_in_background();
        bool written = true;
        for (const auto& write : writes) written &= write->run();
        done->set_value(written);
        return written;
      },
      [](Napi::Env e, bool& written) { return Napi::Boolean::New(e, written); },
      [writes] {
        for (const auto& write : writes) write->stop();
      });
  return writing;
}

/// load(options, onProgress, onWake)
Napi::Value load(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[0].IsObject() || !info[1].IsFunction() || !info[2].IsFunction())
    throw from_error(env, code::kInvalidOption, "load takes options, onProgress and onWake");
  const EngineOptions options = to_options(info[0].As<Napi::Object>());
  return Task<Loaded>::start_cancellable(
      env, info[1], [options](const TaskControl& control) { return load_from(options, control); },
      [options, wake = shared_reference(info[2].As<Napi::Function>())](Napi::Env e, Loaded& loaded) {
        const Napi::Object object = e.GetInstanceData<Napi::FunctionReference>()->New({});
        NativeEngine::Unwrap(object)->start(e, std::move(loaded.model), std::move(loaded.draft), options, wake->Value(),
                                            write_in_background(e, std::exchange(loaded.writes, {})));
        return object;
      });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Napi::FunctionReference(Napi::Persistent(NativeEngine::define(env))));
  exports.Set("load", Napi::Function::New<load>(env));
  Extension::define_all(env, exports);
  return exports;
}

}  // namespace

}  // namespace sdar::addon

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return sdar::addon::init(env, exports); }
NODE_API_MODULE(sdar_node, init_addon)
