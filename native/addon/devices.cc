// What the machine has to compute on, for the doctor and for messages.
#include <string>

#include "addon/extension.h"
#include "backend/cpu/cpu.h"
#include "backend/cuda/cuda.h"

namespace sdar::addon {

namespace {

Napi::Value instruction_sets(const Napi::CallbackInfo& info) {
  auto names = Napi::Array::New(info.Env());
  uint32_t i = 0;
  for (const std::string& name : cpu::instruction_sets()) names.Set(i++, name);
  return names;
}

Napi::Value probe_cuda(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const cuda::Probe found = cuda::probe();
  auto devices = Napi::Array::New(env);
  for (uint32_t i = 0; i < found.devices.size(); i++) {
    const cuda::DeviceInfo& device = found.devices[i];
    auto o = Napi::Object::New(env);
    o.Set("name", device.name);
    o.Set("capability", device.capability);
    o.Set("memory", double(device.memory));
    o.Set("problem", device.unavailable);
    devices.Set(i, o);
  }
  auto o = Napi::Object::New(env);
  o.Set("library", found.library);
  o.Set("driver", found.driver);
  o.Set("runtime", found.runtime);
  o.Set("cards", devices);
  o.Set("problem", found.unavailable);
  return o;
}

void define_devices(Napi::Env env, Napi::Object exports) {
  exports.Set("instructionSets", Napi::Function::New<instruction_sets>(env));
  exports.Set("probeCuda", Napi::Function::New<probe_cuda>(env));
}

const Extension extension{define_devices};

}  // namespace

}  // namespace sdar::addon
