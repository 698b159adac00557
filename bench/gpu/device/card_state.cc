// Clocks, power and temperature through NVML, which comes with the driver and is opened at run time: its entry points
// are declared here because its header need not be there. Source: NVML API reference.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "device.h"

namespace gpu_bench {
namespace {

using Handle = struct nvmlDevice_st*;

struct Nvml {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  int (*init)() = nullptr;
  int (*by_bus)(const char*, Handle*) = nullptr;
  int (*clock)(Handle, int, unsigned*) = nullptr;
  int (*power)(Handle, unsigned*) = nullptr;
  int (*temperature)(Handle, int, unsigned*) = nullptr;
  int (*throttle)(Handle, unsigned long long*) = nullptr;
  bool ready = false;

  Nvml() {
    if (!library) return;
    get(init, "nvmlInit_v2");
    get(by_bus, "nvmlDeviceGetHandleByPciBusId_v2");
    get(clock, "nvmlDeviceGetClockInfo");
    get(power, "nvmlDeviceGetPowerUsage");
    get(temperature, "nvmlDeviceGetTemperature");
    get(throttle, "nvmlDeviceGetCurrentClocksThrottleReasons");
    ready = init && by_bus && clock && init() == 0;
  }
  template <class F>
  void get(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
  }
};

}  // namespace

nlohmann::ordered_json card_state() {
  static const Nvml nvml;
  int index = 0;
  char bus[32] = {};
  Handle card = nullptr;
  if (!nvml.ready || cudaGetDevice(&index) != cudaSuccess ||
      cudaDeviceGetPCIBusId(bus, sizeof bus, index) != cudaSuccess || nvml.by_bus(bus, &card) != 0)
    return nullptr;
  nlohmann::ordered_json state = nlohmann::ordered_json::object();
  unsigned value = 0;
  unsigned long long reasons = 0;
  constexpr int kSm = 1, kMemory = 2, kDie = 0;
  if (nvml.clock(card, kSm, &value) == 0) state["smMHz"] = value;
  if (nvml.clock(card, kMemory, &value) == 0) state["memoryMHz"] = value;
  if (nvml.power && nvml.power(card, &value) == 0) state["watts"] = value / 1e3;
  if (nvml.temperature && nvml.temperature(card, kDie, &value) == 0) state["celsius"] = value;
  if (nvml.throttle && nvml.throttle(card, &reasons) == 0) state["throttleReasons"] = reasons;
  return state;
}

}  // namespace gpu_bench
