#include "addon/form.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "addon/task.h"
#include "form/form.h"

namespace sdar::addon {
namespace {

/// Marks an External as a form, so that no other one is taken for it.
constexpr napi_type_tag kFormTag{0x5d1f3a90c4be4d27, 0xa6b2e8137f04c95b};

constexpr auto kRunsTime = std::chrono::milliseconds(10);

struct Handle {
  std::shared_ptr<form::LiveForm> form;
  std::vector<std::string> runs;  ///< until their tokens are there
};

Handle& to_handle(const Napi::Value& value) {
  if (!value.IsExternal() || !value.As<Napi::External<Handle>>().CheckTypeTag(&kFormTag))
    throw Napi::TypeError::New(value.Env(), "a form is what compileForm gave");
  return *value.As<Napi::External<Handle>>().Data();
}

Napi::Value from_handle(Napi::Env env, Handle&& compiled) {
  auto result = Napi::Object::New(env);
  auto runs = Napi::Array::New(env, compiled.runs.size());
  for (size_t i = 0; i < compiled.runs.size(); i++) runs.Set(static_cast<uint32_t>(i), compiled.runs[i]);
  result.Set("leastTokens", static_cast<double>(compiled.form->least_tokens()));
  result.Set("bytes", static_cast<double>(compiled.form->memory()));
  result.Set("runs", runs);
  auto handle =
      Napi::External<Handle>::New(env, new Handle(std::move(compiled)), [](Napi::Env, Handle* held) { delete held; });
  handle.TypeTag(&kFormTag);
  result.Set("form", handle);
  return result;
}

}  // namespace

Napi::Value compile_form(const Napi::CallbackInfo& info, std::shared_ptr<Forms> forms) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "compileForm takes the form as JSON");
  // Copied on this thread: nobody hands over more than compile() takes.
  size_t length = 0;
  if (napi_get_value_string_utf8(env, info[0], nullptr, 0, &length) != napi_ok || length > form::kMaxFormBytes)
    throw from_error(env, code::kInvalidOption,
                     "format has " + std::to_string(length) + " bytes as JSON; at most " +
                         std::to_string(form::kMaxFormBytes) + " are allowed");
  auto json = std::make_shared<std::string>(info[0].As<Napi::String>().Utf8Value());
  return Task<Handle>::start(
      env, env.Undefined(),
      [json, forms = std::move(forms)](const TaskControl& control) {
        Handle compiled{.form = forms->compile(*json, control.cancelled), .runs = {}};
        const auto end = std::chrono::steady_clock::now() + kRunsTime;
        compiled.runs =
            compiled.form->runs([&] { return control.cancelled() || std::chrono::steady_clock::now() > end; });
        return compiled;
      },
      [](Napi::Env e, Handle& compiled) { return from_handle(e, std::move(compiled)); });
}

void set_splits(const Napi::CallbackInfo& info) {
  if (info.Length() < 3 || !info[1].IsTypedArray() || !info[2].IsTypedArray())
    throw Napi::TypeError::New(info.Env(), "setSplits takes a form and two Int32Arrays");
  Handle& handle = to_handle(info[0]);
  const auto ids = info[1].As<Napi::Int32Array>(), counts = info[2].As<Napi::Int32Array>();
  std::vector<std::vector<int32_t>> splits(std::min(handle.runs.size(), counts.ElementLength()));
  size_t at = 0;
  for (size_t i = 0; i < splits.size(); i++) {
    for (int32_t n = 0; n < counts[i] && at < ids.ElementLength(); n++) splits[i].push_back(ids[at++]);
  }
  handle.form->set_splits(handle.runs, splits);
  handle.runs.clear();
}

std::shared_ptr<form::LiveForm> to_form(const Napi::Value& value) { return to_handle(value).form; }

}  // namespace sdar::addon
