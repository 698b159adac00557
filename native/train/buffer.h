// Floats that start where a cache line does: a vector that is loaded from two lines takes twice the time. Large ones lie
// in large pages, where the system has them: rows of a matrix are pages apart.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace sdar::train {

template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr size_t kLine = 64, kPage = size_t{2} << 20;

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  static std::align_val_t alignment(size_t n) { return std::align_val_t{n * sizeof(T) < 2 * kPage ? kLine : kPage}; }
  T* allocate(size_t n) {
    void* p = ::operator new(n * sizeof(T), alignment(n));
#ifdef MADV_HUGEPAGE
    if (alignment(n) == std::align_val_t{kPage}) madvise(p, n * sizeof(T) / kPage * kPage, MADV_HUGEPAGE);
#endif
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t n) { ::operator delete(p, alignment(n)); }
  bool operator==(const LineAllocator&) const { return true; }
};

using Buffer = std::vector<float, LineAllocator<float>>;

/// At least `floats` of it.
inline float* grown(Buffer& buffer, int64_t floats) {
  if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(static_cast<size_t>(floats));
  return buffer.data();
}

}  // namespace sdar::train
