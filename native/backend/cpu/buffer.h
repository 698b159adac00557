// 64-byte aligned memory that only grows; growing loses the contents.
#pragma once
#include <cstddef>
#include <memory>
#include <new>
#include <string>

#include "util/error.h"

namespace sdar::cpu {

template <class T>
class Buffer {
 public:
  /// At least n elements, not initialised. Throws Error(OUT_OF_MEMORY).
  T* reserve(size_t n) {
    if (memory_ && n <= size_) return memory_.get();
    memory_.reset();
    void* memory = ::operator new (n * sizeof(T) + 64, std::align_val_t{64}, std::nothrow);
    if (!memory)
      throw Error(code::kOutOfMemory, "no memory for " + std::to_string(n * sizeof(T)) + " bytes of workspace");
    memory_.reset(static_cast<T*>(memory));
    size_ = n;
    return memory_.get();
  }
  T* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> memory_;
  size_t size_ = 0;
};

}  // namespace sdar::cpu
