#include "simt/device.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backend/cuda/abi/abi_guard.h"
#include "backend/cuda/kernels/kernels.h"
#include "simt/executor.h"
#include "simt/memory.h"
#include "util/error.h"

namespace sdar::cuda_host {
namespace {

using namespace sdar::cuda;

constexpr uint64_t kMemory = uint64_t{8} << 30;
int break_at = 0;
const char* break_code = code::kDeviceFailed;

int32_t versions(int32_t* driver, int32_t* runtime, SdarCudaError*) {
  *driver = *runtime = 13000;
  return 0;
}
int32_t count(int32_t* devices, SdarCudaError*) {
  *devices = 1;
  return 0;
}
int32_t properties(int32_t, SdarCudaProperties* to, SdarCudaError*) {
  *to = {.name = "host executor", .major = 8, .minor = 6, .multiprocessors = 4, .memory = kMemory};
  return 0;
}
int32_t open(int32_t, SdarCudaDevice** device, SdarCudaError*) {
  *device = nullptr;  // there is but one
  return 0;
}
void close(SdarCudaDevice*) {}
int32_t memory(SdarCudaDevice*, uint64_t* free, uint64_t* total, SdarCudaError*) {
  *free = device_memory_left();
  *total = kMemory;
  return 0;
}
int32_t allocate_named(SdarCudaDevice*, size_t bytes, const char* name, void** to, SdarCudaError* error) {
  return guarded(error, [&] { *to = allocate(bytes, name); });
}
void release_one(SdarCudaDevice*, void* p) { release(p); }
int32_t allocate_pinned(SdarCudaDevice*, size_t bytes, void** to, SdarCudaError*) {
  *to = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  std::memset(*to, 0xa5, bytes);
  return 0;
}
void release_pinned(SdarCudaDevice*, void* p) { std::free(p); }
int32_t copy_up(SdarCudaDevice*, void* device, const void* host, size_t bytes, SdarCudaError* error) {
  return guarded(error, [&] { upload(device, host, bytes); });
}
int32_t copy_down(SdarCudaDevice*, void* host, const void* device, size_t bytes, SdarCudaError* error) {
  return guarded(error, [&] { download(host, device, bytes); });
}
int32_t fill_bytes(SdarCudaDevice*, void* device, int32_t byte, size_t bytes, SdarCudaError* error) {
  return guarded(error, [&] { fill(device, byte, bytes); });
}
int32_t record_event(SdarCudaDevice*, int32_t, SdarCudaError*) { return 0; }
int32_t wait_event(SdarCudaDevice*, int32_t, SdarCudaError*) { return 0; }
std::vector<std::chrono::steady_clock::time_point> timestamps;  // calls are done when they return
int32_t record_timestamp(SdarCudaDevice*, int32_t index, SdarCudaError*) {
  timestamps.resize(std::max(timestamps.size(), static_cast<size_t>(index) + 1));
  timestamps[static_cast<size_t>(index)] = std::chrono::steady_clock::now();
  return 0;
}
int32_t elapsed(SdarCudaDevice*, int32_t from, int32_t to, double* seconds, SdarCudaError* error) {
  return guarded(error, [&] {
    *seconds = std::chrono::duration<double>(timestamps.at(static_cast<size_t>(to)) - timestamps.at(static_cast<size_t>(from)))
                   .count();
  });
}
int32_t launch(SdarCudaDevice*, int32_t kernel, const void* params, size_t bytes, SdarCudaError* error) {
  return guarded(error, [&] {
    if (break_at > 0 && --break_at == 0) throw Error(break_code, "an illegal memory access was encountered");
    launch_kernel(nullptr, kernel, params, bytes);
  });
}

}  // namespace

const SdarCudaInterface& device_interface() {
  static const SdarCudaInterface interface {
    .version = kAbiVersion, .versions = versions, .count = count, .properties = properties, .open = open, .close = close,
    .memory = memory, .allocate = allocate_named, .release = release_one, .allocate_pinned = allocate_pinned,
    .release_pinned = release_pinned, .upload = copy_up, .download = copy_down, .fill = fill_bytes, .record_event = record_event,
    .wait_event = wait_event, .record_timestamp = record_timestamp, .elapsed = elapsed, .launch = launch, .begin_capture = nullptr,
    .end_capture = nullptr, .replay = nullptr, .release_graph = nullptr, .checks_bounds = 1
  };
  return interface;
}

void break_launch(int n, const char* code) {
  break_at = n;
  break_code = code;
}

ModelConfig smallest_config(int32_t vocabulary, int32_t mask_id) {
  ModelConfig config;
  config.shape = {.layers = 1,
                  .hidden = 64,
                  .intermediate = 64,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .vocabulary = vocabulary,
                  .context = 512};
  config.tied = true;
  config.mask_token_id = mask_id;
  config.sparse = {false};
  return config;
}

}  // namespace sdar::cuda_host
