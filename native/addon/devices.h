// What this machine can compute on; lib/binding.ts is the contract.
#pragma once
#include <napi.h>

namespace sdar::addon {

/// Adds instructionSets and probeCuda.
void define_devices(Napi::Env env, Napi::Object exports);

}  // namespace sdar::addon
