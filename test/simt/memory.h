// Device memory of the SIMT executor. A device address lies in a range that no one can touch: only load_global and its
// like, and the copies below, translate it. So a pointer that the host dereferences, or a kernel, ends the process.
// Allocations are 256-byte aligned with at least 256 bytes between them, filled with NaN patterns, and count as
// unwritten until something is stored; addresses are never used again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sdar::cuda_host {

/// Throws Error(OUT_OF_MEMORY) beyond `device_memory_limit`.
void* allocate(size_t bytes, std::string name);
void release(void* device);
/// These throw Error: OUT_OF_BOUNDS, FREED_MEMORY, or UNWRITTEN (a download of what nobody wrote).
void upload(void* device, const void* host, size_t bytes);
void download(void* host, const void* device, size_t bytes);
void fill(void* device, int byte, size_t bytes);

size_t allocated_bytes();
size_t device_memory_left();
/// What the pretended device has; 8 GB unless set.
void set_device_memory_limit(size_t bytes);

/// An array in device memory.
template <class T>
class Buffer {
 public:
  Buffer(size_t count, std::string name) : count_(count), p_(allocate(count * sizeof(T), std::move(name))) {}
  Buffer(std::span<const T> values, std::string name) : Buffer(values.size(), std::move(name)) { set(values); }
  Buffer(const std::vector<T>& values, std::string name) : Buffer(std::span<const T>(values), std::move(name)) {}
  ~Buffer() { release(p_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return static_cast<T*>(p_); }
  size_t size() const { return count_; }
  void set(std::span<const T> values) { upload(p_, values.data(), values.size_bytes()); }
  std::vector<T> values() const {
    std::vector<T> v(count_);
    download(v.data(), p_, count_ * sizeof(T));
    return v;
  }

 private:
  size_t count_ = 0;
  void* p_ = nullptr;
};

}  // namespace sdar::cuda_host
