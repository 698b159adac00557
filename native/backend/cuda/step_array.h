// Arrays of a step: in pinned memory for the host, and on the device.
#pragma once
#include <bit>
#include <cstddef>
#include <string>
#include <utility>

#include "backend/cuda/device.h"

namespace sdar::cuda {

template <class T>
class StepArray {
 public:
  StepArray(Device& device, std::string name) : device_(device), name_(std::move(name)) {}
  ~StepArray() { release(); }
  StepArray(const StepArray&) = delete;
  StepArray& operator=(const StepArray&) = delete;

  /// Room for `count`. True: the array has moved, and lost what it held. No step may be in flight.
  bool reserve(size_t count) {
    if (count <= capacity_) return false;
    release();
    const size_t room = std::bit_ceil(count);
    host_ = static_cast<T*>(device_.allocate_pinned(room * sizeof(T)));
    memory_ = static_cast<T*>(device_.allocate(room * sizeof(T), name_));
    capacity_ = room;
    return true;
  }
  T* get() const { return memory_; }
  T* host() const { return host_; }
  T& operator[](size_t i) const { return host_[i]; }
  void upload(size_t count) const { device_.upload(memory_, host_, count * sizeof(T)); }
  void download(size_t count) const { device_.download(host_, memory_, count * sizeof(T)); }

 private:
  void release() noexcept {
    device_.release_pinned(std::exchange(host_, nullptr));
    device_.release(std::exchange(memory_, nullptr));
    capacity_ = 0;
  }
  Device& device_;
  std::string name_;
  T* host_ = nullptr;
  T* memory_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace sdar::cuda
