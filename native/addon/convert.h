// JavaScript values to native ones and back; lib/binding.ts is the contract. lib/options.ts has
// judged the values: here only types are checked, and ranges that the native types need.
#pragma once
#include <napi.h>

#include "engine/engine.h"

namespace sdar::addon {

EngineOptions to_options(const Napi::Object& object);
Request to_request(const Napi::Object& object);

Napi::Value from_info(Napi::Env env, const Model& model);
Napi::Value from_records(Napi::Env env, EventBatch&& batch);
Napi::Value from_stats(Napi::Env env, const EngineStats& stats);

/// Members of an object; JavaScript errors name the member and what is allowed.
double number(const Napi::Object& object, const char* name, double low, double high);
int32_t integer(const Napi::Object& object, const char* name, double low = 0, double high = INT32_MAX);
bool boolean(const Napi::Object& object, const char* name);
std::string string(const Napi::Object& object, const char* name);
std::vector<int32_t> int_array(const Napi::Object& object, const char* name);

/// An Error object with the stable `code`.
Napi::Error from_error(Napi::Env env, const std::string& code, const std::string& message);

}  // namespace sdar::addon
