// Floats that start where a cache line does: a vector that is loaded from two lines takes twice the time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace sdar::train {

template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kLine); }
  bool operator==(const LineAllocator&) const { return true; }
};

using Buffer = std::vector<float, LineAllocator<float>>;

/// At least `floats` of it.
inline float* grown(Buffer& buffer, int64_t floats) {
  if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(static_cast<size_t>(floats));
  return buffer.data();
}

}  // namespace sdar::train
