#include "backend/cuda/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/library.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

constexpr int32_t kOldestCapability = 80;  ///< compute capability · 10: bf16 tensor cores and cp.async

std::string version_text(int32_t version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

DeviceInfo describe(const SdarCudaProperties& properties) {
  DeviceInfo info{.name = properties.name,
                  .capability = std::to_string(properties.major) + "." + std::to_string(properties.minor),
                  .memory = static_cast<int64_t>(properties.memory),
                  .unavailable = {}};
  if (properties.major * 10 + properties.minor < kOldestCapability)
    info.unavailable = info.name + " has compute capability " + info.capability + "; 8.0 (Ampere) or newer is needed";
  return info;
}

}  // namespace

Probe probe() {
  Probe found;
  const Library library = open_library();
  found.unavailable = library.unavailable;
  if (!library.interface) return found;
  const SdarCudaInterface& cuda = *library.interface;
  found.library = library.file;
  SdarCudaError error{};
  int32_t driver = 0, runtime = 0, count = 0;
  if (cuda.versions(&driver, &runtime, &error) != 0) {
    found.unavailable = error.message;
    return found;
  }
  found.runtime = version_text(runtime);
  if (driver > 0) found.driver = version_text(driver);
  if (driver == 0) {
    found.unavailable =
        "no NVIDIA driver answers; install one that knows CUDA " + found.runtime + " (nvidia-smi tells)";
  } else if (driver / 1000 < runtime / 1000) {
    found.unavailable = "the NVIDIA driver knows CUDA " + found.driver + ", and the kernels were built with CUDA " +
                        found.runtime + ": install a newer driver, or build with an older nvcc";
  } else if (cuda.count(&count, &error) != 0) {
    found.unavailable = error.message;
  } else if (count == 0) {
    found.unavailable = "no NVIDIA GPU is visible; see nvidia-smi and the environment's CUDA_VISIBLE_DEVICES";
  }
  if (!found.unavailable.empty()) return found;
  for (int32_t i = 0; i < count; i++) {
    SdarCudaProperties properties{};
    if (cuda.properties(i, &properties, &error) != 0) {
      found.devices.push_back({.name = {}, .capability = {}, .unavailable = error.message});
    } else {
      found.devices.push_back(describe(properties));
    }
    if (found.first < 0 && found.devices.back().unavailable.empty()) found.first = i;
  }
  if (found.first < 0) found.unavailable = found.devices.front().unavailable;
  return found;
}

std::unique_ptr<Backend> make_backend(const Options& options) {
  const std::string named = options.device < 0 ? "cuda" : "cuda:" + std::to_string(options.device);
  const auto refuse = [&](const std::string& why) {
    throw Error(code::kUnsupportedDevice, "device \"" + named + "\" is not available: " + why);
  };
  const Probe found = probe();
  if (found.devices.empty()) refuse(found.unavailable);
  const int32_t count = static_cast<int32_t>(found.devices.size());
  const int32_t index = options.device < 0 ? found.first : options.device;
  if (options.device < 0 && found.first < 0) refuse(found.unavailable);
  if (index >= count)
    refuse(count == 1 ? "this machine has one GPU, cuda:0"
                      : "this machine has GPUs cuda:0 to cuda:" + std::to_string(count - 1));
  if (!found.devices[index].unavailable.empty()) refuse(found.devices[index].unavailable);
  return std::make_unique<CudaBackend>(*open_library().interface, index, options);
}

}  // namespace sdar::cuda
