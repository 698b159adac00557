// The interface of cuda_host that oracle tests use, over the CUDA runtime: the same test sources run on a real device.
// Memory starts as NaN patterns, and what is written next to an allocation is noticed when it is released. Nothing is
// counted: a test that asks what a launch did is skipped.
#include <cuda_runtime_api.h>

#include <unordered_map>

#include "check.h"
#include "simt/executor.h"
#include "simt/memory.h"
#include "simt/report.h"

namespace sdar::cuda_host {
namespace {

constexpr size_t kGuard = 256;
constexpr int kGuardByte = 0xA5;

struct Allocation {
  size_t bytes;
  std::string name;
};
std::unordered_map<void*, Allocation> allocations;

void succeed(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) throw Error(code::kInternal, what + ": " + cudaGetErrorString(status));
}

bool untouched(const unsigned char* device) {
  unsigned char bytes[kGuard];
  if (cudaMemcpy(bytes, device, kGuard, cudaMemcpyDeviceToHost) != cudaSuccess) return true;  // told elsewhere
  for (unsigned char byte : bytes)
    if (byte != kGuardByte) return false;
  return true;
}

}  // namespace

void* allocate(size_t bytes, std::string name) {
  void* base = nullptr;
  succeed(cudaMalloc(&base, bytes + 2 * kGuard), "allocating " + name);
  succeed(cudaMemset(base, kGuardByte, bytes + 2 * kGuard), "clearing " + name);
  unsigned char* p = static_cast<unsigned char*>(base) + kGuard;
  if (bytes > 0) succeed(cudaMemset(p, 0xFF, bytes), "clearing " + name);
  allocations[p] = {bytes, std::move(name)};
  return p;
}

void release(void* device) {
  const auto it = allocations.find(device);
  if (it == allocations.end()) return;
  auto* p = static_cast<unsigned char*>(device);
  if (!untouched(p - kGuard) || !untouched(p + it->second.bytes))
    check::fail(it->second.name.c_str(), 0, "a kernel wrote beside this allocation");
  cudaFree(p - kGuard);
  allocations.erase(it);
}

void upload(void* device, const void* host, size_t bytes) {
  if (bytes > 0) succeed(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "upload");
}
void download(void* host, const void* device, size_t bytes) {
  succeed(cudaDeviceSynchronize(), "a kernel");
  if (bytes > 0) succeed(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "download");
}
void fill(void* device, int byte, size_t bytes) { succeed(cudaMemset(device, byte, bytes), "fill"); }

/// The hardware has its own order; a repetition may still meet another one.
void set_seed(uint64_t) {}
uint64_t orders() { return 3; }  // the device takes its own

void set_shared_limit(int) {}
bool has_warpgroups() {
  int major = 0;
  succeed(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
  return major == 9;
}

namespace {
[[noreturn]] void uncounted() { throw check::Skip{"accesses are counted under host execution alone"}; }
}  // namespace
const LaunchReport& last_launch() { uncounted(); }
Counters& counters() { uncounted(); }
const LaunchReport::Tensor& LaunchReport::tensor(const std::string&) const { uncounted(); }
int64_t LaunchReport::bank_conflicts(const std::string&) const { uncounted(); }

}  // namespace sdar::cuda_host
