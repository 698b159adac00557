#include "backend/cuda/device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "util/error.h"

namespace sdar::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{8} << 20;
std::string mib(uint64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

template <class F, class... A>
void Device::call(F function, A... arguments) const {
  if (!failure_.empty()) throw Error(code::kDeviceFailed, failure_);
  SdarCudaError error{};
  if (function(arguments..., &error) == 0) return;
  const std::string code = error.code;
  std::string message = error.message;
  if (code == code::kDeviceFailed && !capturing_) {
    message = failure_ = named() + " failed: " + message + "; load the model again, in a new process if it fails again";
  } else if (code == code::kOutOfMemory) {
    message = named() + ": " + message;
  }
  throw Error(code, message);
}

Device::Device(const SdarCudaInterface& interface, int32_t index)
    : interface_(interface), index_(index), has_graphs_(interface.begin_capture != nullptr) {
  call(interface_.properties, index, &properties_);
  call(interface_.open, index, &device_);
  try {
    staging_ = allocate_pinned(kStagingBytes);
  } catch (...) {
    interface_.close(device_);
    throw;
  }
}

Device::~Device() {
  release_pinned(staging_);
  interface_.close(device_);
}

uint64_t Device::free_memory() const {
  uint64_t free = 0, total = 0;
  call(interface_.memory, device_, &free, &total);
  return free;
}

void* Device::allocate(size_t bytes, const std::string& name, const std::string& advice) {
  void* memory = nullptr;
  try {
    call(interface_.allocate, device_, bytes, name.c_str(), &memory);
  } catch (const Error& e) {
    if (e.code() != code::kOutOfMemory) throw;
    throw Error(code::kOutOfMemory, mib(bytes) + " for " + name + " do not fit on " + named() + ", where " +
                                        mib(free_memory()) + " of " + mib(properties_.memory) + " are free" +
                                        (advice.empty() ? "" : ": " + advice));
  }
  return memory;
}

void Device::release(void* memory) noexcept {
  if (memory) interface_.release(device_, memory);
}

void* Device::allocate_pinned(size_t bytes) {
  void* memory = nullptr;
  call(interface_.allocate_pinned, device_, bytes, &memory);
  return memory;
}

void Device::release_pinned(void* memory) noexcept {
  if (memory) interface_.release_pinned(device_, memory);
}

void Device::upload(void* to, const void* pinned, size_t bytes) {
  if (bytes > 0) call(interface_.upload, device_, to, pinned, bytes);
}
void Device::download(void* pinned, const void* from, size_t bytes) {
  if (bytes > 0) call(interface_.download, device_, pinned, from, bytes);
}
void Device::fill(void* to, int byte, size_t bytes) {
  if (bytes > 0) call(interface_.fill, device_, to, byte, bytes);
}
void Device::record_event(int32_t place) { call(interface_.record_event, device_, place); }
void Device::wait_event(int32_t place) { call(interface_.wait_event, device_, place); }
void Device::timestamp(int32_t index) { call(interface_.record_timestamp, device_, index); }
double Device::elapsed(int32_t from, int32_t to) {
  double seconds = 0;
  call(interface_.elapsed, device_, from, to, &seconds);
  return seconds;
}

// Half of the staging memory is filled while the other half is in flight.
void Device::upload_now(void* to, const void* from, size_t bytes) {
  constexpr size_t kHalf = kStagingBytes / 2;
  const auto* source = static_cast<const std::byte*>(from);
  int32_t half = 0;
  for (size_t at = 0; at < bytes; at += kHalf, half ^= 1) {
    auto* staging = static_cast<std::byte*>(staging_) + half * kHalf;
    const size_t n = std::min(kHalf, bytes - at);
    if (at >= 2 * kHalf) wait_event(half);
    std::memcpy(staging, source + at, n);
    upload(static_cast<std::byte*>(to) + at, staging, n);
    record_event(half);
  }
  if (bytes > 0) wait_event(half ^ 1);
}

void Device::download_now(void* to, const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kStagingBytes) {
    const size_t n = std::min(kStagingBytes, bytes - at);
    download(staging_, static_cast<const std::byte*>(from) + at, n);
    record_event(0);
    wait_event(0);
    std::memcpy(static_cast<std::byte*>(to) + at, staging_, n);
  }
}

void Device::launch(Kernel kernel, const void* arguments, size_t bytes) {
  call(interface_.launch, device_, static_cast<int32_t>(kernel), arguments, bytes);
}
bool Device::launches(Kernel kernel, const void* arguments, size_t bytes, SdarCudaError& error) {
  return interface_.launch(device_, static_cast<int32_t>(kernel), arguments, bytes, &error) == 0 &&
         interface_.record_event(device_, 0, &error) == 0 && interface_.wait_event(device_, 0, &error) == 0;
}
bool Device::can_launch(Kernel kernel, const void* arguments, size_t bytes) {
  SdarCudaError ignored{};
  return launches(kernel, arguments, bytes, ignored);
}
void Device::try_launch(Kernel kernel, const void* arguments, size_t bytes) {
  SdarCudaError error{};
  if (launches(kernel, arguments, bytes, error)) return;
  const std::string code = error.code;
  if (code != code::kDeviceFailed) throw Error(code, named() + ": " + error.message);
  throw Error(code::kUnsupportedDevice, "libsdar_cuda, the library of the CUDA kernels, cannot run on " + named() +
                                            ": " + error.message + "; build it for this GPU: SDAR_CUDA_ARCHITECTURES=" +
                                            std::to_string(properties_.major * 10 + properties_.minor) +
                                            " npm run build:native");
}
void Device::begin_capture() {
  call(interface_.begin_capture, device_);
  capturing_ = true;
}
SdarCudaGraph* Device::end_capture() {
  SdarCudaGraph* graph = nullptr;
  SdarCudaError error{};
  capturing_ = false;
  if (interface_.end_capture(device_, &graph, &error) != 0) throw Error(error.code, named() + ": " + error.message);
  return graph;
}
void Device::abandon_capture() noexcept {
  SdarCudaGraph* graph = nullptr;
  SdarCudaError ignored{};
  if (std::exchange(capturing_, false) && interface_.end_capture(device_, &graph, &ignored) == 0) release_graph(graph);
}
void Device::replay(SdarCudaGraph* graph) { call(interface_.replay, device_, graph); }
void Device::release_graph(SdarCudaGraph* graph) noexcept {
  if (graph) interface_.release_graph(device_, graph);
}

Arena::~Arena() {
  for (void* memory : allocations_) device_.release(memory);
}

void Arena::reserve(size_t bytes, const std::string& name, const std::string& advice) {
  allocations_.reserve(allocations_.size() + 1);
  next_ = static_cast<std::byte*>(device_.allocate(bytes, name, advice));
  if (device_.checks_bounds()) return device_.release(next_);  // it would have fitted
  allocations_.push_back(next_);
  left_ = bytes;
}

void* Arena::take(size_t bytes, const std::string& name) {
  bytes = std::max<size_t>(bytes, 16);
  if (device_.checks_bounds() || padded(bytes) > left_) {
    allocations_.reserve(allocations_.size() + 1);
    allocations_.push_back(device_.allocate(bytes, name));
    return allocations_.back();
  }
  void* memory = next_;
  next_ += padded(bytes);
  left_ -= padded(bytes);
  return memory;
}

}  // namespace sdar::cuda
