// Measurements and random checkpoints for the command line; lib/cli/bench-binding.ts is the contract.
#pragma once
#include <napi.h>

namespace sdar::addon {

/// Adds openBench and writeCheckpoint.
void define_bench(Napi::Env env, Napi::Object exports);

}  // namespace sdar::addon
