// Masks of forms over any token table, without a model: what tests compare with those of another implementation.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "addon/convert.h"
#include "addon/extension.h"
#include "form/form.h"
#include "form/live.h"
#include "util/error.h"

namespace sdar::addon {
namespace {

constexpr napi_type_tag kVocabularyTag{0x3f0f5b2b7f1a4c1e, 0x8f64a0c9b1d2e357};
constexpr napi_type_tag kWalkTag{0x61c8d0a94b7e4f23, 0x97a15e3c08b6d4f2};

using Words = std::shared_ptr<const form::Vocabulary>;
struct Walk {
  Walk(const std::string& json, const Words& words) : form(form::compile(json), words), state(form.start()) {}
  form::LiveForm form;
  form::State state;
};

template <class T>
Napi::Value wrap(Napi::Env env, T&& held, const napi_type_tag& tag) {
  auto out = Napi::External<T>::New(env, new T(std::move(held)), [](Napi::Env, T* gone) { delete gone; });
  out.TypeTag(&tag);
  return out;
}

template <class T>
T& unwrap(const Napi::CallbackInfo& info, size_t i, const napi_type_tag& tag) {
  if (info.Length() <= i || !info[i].IsExternal() || !info[i].As<Napi::External<T>>().CheckTypeTag(&tag))
    throw Napi::TypeError::New(info.Env(), "not a handle of this function");
  return *info[i].As<Napi::External<T>>().Data();
}

/// formVocabulary({ bytes, offsets, endIds, size }): a handle. Throws INVALID_OPTION, as form::Vocabulary does.
Napi::Value form_vocabulary(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto o = info[0].As<Napi::Object>();
  const auto bytes = o.Get("bytes").As<Napi::Uint8Array>();
  const auto offsets = o.Get("offsets").As<Napi::Uint32Array>();
  try {
    return wrap(env,
                Words(std::make_shared<form::Vocabulary>(
                    std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()),
                    std::vector<uint32_t>(offsets.Data(), offsets.Data() + offsets.ElementLength()),
                    int_array(o, "endIds"), integer(o, "size", 1))),
                kVocabularyTag);
  } catch (const Error& e) {
    throw from_error(env, e.code(), e.what());
  }
}

/// formWalk(vocabulary, json): a handle, before the first token of a text of the form. Throws INVALID_OPTION.
Napi::Value form_walk(const Napi::CallbackInfo& info) {
  const Words& words = unwrap<Words>(info, 0, kVocabularyTag);
  try {
    return wrap(info.Env(), std::make_unique<Walk>(info[1].As<Napi::String>().Utf8Value(), words), kWalkTag);
  } catch (const Error& e) {
    throw from_error(info.Env(), e.code(), e.what());
  }
}

/// formMask(walk): the ids that may come next, a bit each in 32-bit words, ascending; undefined after the text's end.
Napi::Value form_mask(const Napi::CallbackInfo& info) {
  Walk& walk = *unwrap<std::unique_ptr<Walk>>(info, 0, kWalkTag);
  if (walk.state < 0) return info.Env().Undefined();
  const auto mask = walk.form.allowed(walk.state);
  auto out = Napi::Int32Array::New(info.Env(), 2 * mask->size());
  std::memcpy(out.Data(), mask->data(), mask->size() * sizeof(uint64_t));
  return out;
}

/// formAdvance(walk, id): whether this token was allowed.
Napi::Value form_advance(const Napi::CallbackInfo& info) {
  Walk& walk = *unwrap<std::unique_ptr<Walk>>(info, 0, kWalkTag);
  walk.state = walk.form.advance(walk.state, info[1].As<Napi::Number>().Int32Value());
  return Napi::Boolean::New(info.Env(), walk.state != form::kDead);
}

void define_forms(Napi::Env env, Napi::Object exports) {
  exports.Set("formVocabulary", Napi::Function::New<form_vocabulary>(env));
  exports.Set("formWalk", Napi::Function::New<form_walk>(env));
  exports.Set("formMask", Napi::Function::New<form_mask>(env));
  exports.Set("formAdvance", Napi::Function::New<form_advance>(env));
}

const Extension extension{define_forms};

}  // namespace
}  // namespace sdar::addon
