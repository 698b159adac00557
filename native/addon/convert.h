// JavaScript values to native ones and back; lib/binding.ts is the contract. Anything malformed throws a JavaScript
// error.
#pragma once
#include <napi.h>

#include "engine/engine.h"

namespace sdar::addon {

EngineOptions to_options(const Napi::Object& object);
Request to_request(const Napi::Object& object);

Napi::Value from_info(Napi::Env env, const Model& model);
Napi::Value from_events(Napi::Env env, EventBatch&& batch);
Napi::Value from_stats(Napi::Env env, const EngineStats& stats);

/// An Error object with the stable `code`.
Napi::Error from_error(Napi::Env env, const std::string& code, const std::string& message);

}  // namespace sdar::addon
