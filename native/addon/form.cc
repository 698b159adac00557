// Forms of answers: compiled on a thread of their own, kept by JavaScript as an opaque handle that requests will name.
#include "form/form.h"

#include "addon/extension.h"
#include "addon/form.h"
#include "addon/task.h"

namespace sdar::addon {
namespace {

/// Marks an External as a form, so that no other one is taken for it.
constexpr napi_type_tag kFormTag{0x5d1f3a90c4be4d27, 0xa6b2e8137f04c95b};

struct Compiled {
  std::shared_ptr<const form::Program> program;
  uint32_t least_bytes = 0;
};

/// compileForm(json): Promise<{ form, leastBytes, bytes }>, INVALID_OPTION as form::compile.
Napi::Value compile_form(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "compileForm takes the form as JSON");
  // Copied on this thread: nobody hands over more than compile() takes.
  size_t length = 0;
  if (napi_get_value_string_utf8(env, info[0], nullptr, 0, &length) != napi_ok || length > form::kMaxFormBytes)
    throw from_error(env, code::kInvalidOption,
                     "format has " + std::to_string(length) + " bytes as JSON; at most " +
                         std::to_string(form::kMaxFormBytes) + " are allowed");
  auto json = std::make_shared<std::string>(info[0].As<Napi::String>().Utf8Value());
  return Task<Compiled>::start(
      env, env.Undefined(),
      [json](const TaskControl&) {
        Compiled compiled{.program = form::compile(*json)};
        compiled.least_bytes = compiled.program->least[compiled.program->rules[compiled.program->root].start];
        return compiled;
      },
      [](Napi::Env e, Compiled& compiled) -> Napi::Value {
        auto result = Napi::Object::New(e);
        const auto bytes = static_cast<double>(compiled.program->memory());
        auto handle = Napi::External<FormHandle>::New(e, new FormHandle(std::move(compiled.program)),
                                                      [](Napi::Env, FormHandle* held) { delete held; });
        handle.TypeTag(&kFormTag);
        result.Set("form", handle);
        result.Set("leastBytes", static_cast<double>(compiled.least_bytes));
        result.Set("bytes", bytes);
        return result;
      });
}

void define_forms(Napi::Env env, Napi::Object exports) {
  exports.Set("compileForm", Napi::Function::New<compile_form>(env));
}

const Extension extension{define_forms};

}  // namespace

FormHandle to_form(const Napi::Value& value) {
  if (!value.IsExternal() || !value.As<Napi::External<FormHandle>>().CheckTypeTag(&kFormTag))
    throw Napi::TypeError::New(value.Env(), "a form is what compileForm gave");
  return *value.As<Napi::External<FormHandle>>().Data();
}

}  // namespace sdar::addon
