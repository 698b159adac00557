#include "backend/cpu/attention_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "util/error.h"
#include "util/half.h"

namespace sdar::cpu {
namespace {

constexpr int32_t padded(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr size_t element_bytes(KvFormat f) { return f == KvFormat::f32 ? 4 : f == KvFormat::bf16 ? 2 : 1; }
constexpr size_t part_bytes(int32_t head_dim, KvFormat format) {
  return static_cast<size_t>(kPageSlots) * padded(head_dim) * element_bytes(format);
}
constexpr size_t bytes_of_slab(int32_t head_dim, KvFormat format) {
  return 2 * (part_bytes(head_dim, format) + (format == KvFormat::int8 ? kPageSlots * sizeof(float) : 0));
}

}  // namespace

bool LazyMemory::reserve(size_t bytes) {
  release();
  bytes = std::max<size_t>(bytes, 1);
  // No MAP_NORESERVE: then the kernel refuses what the machine can never hold.
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return false;
#ifdef MADV_HUGEPAGE
  madvise(p, bytes, MADV_HUGEPAGE);
#endif
  data_ = static_cast<std::byte*>(p);
  size_ = bytes;
  return true;
}

void LazyMemory::release() {
  if (data_) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

size_t KvPages::page_bytes(const ModelShape& shape, KvFormat format) {
  return static_cast<size_t>(shape.layers) * shape.kv_heads * bytes_of_slab(shape.head_dim, format);
}

void KvPages::configure(const ModelShape& shape, const CacheShape& cache) {
  format_ = cache.format;
  layers_ = shape.layers;
  head_dim_ = shape.head_dim;
  dim_ = padded(shape.head_dim);
  part_bytes_ = part_bytes(head_dim_, format_);
  slab_bytes_ = bytes_of_slab(head_dim_, format_);
  layer_bytes_ = slab_bytes_ * shape.kv_heads;
  const size_t bytes = page_bytes(shape, format_), pages = static_cast<size_t>(std::max<int64_t>(cache.pages, 0));
  if (pages > std::numeric_limits<size_t>::max() / std::max<size_t>(bytes, 1) || !memory_.reserve(pages * bytes)) {
    throw Error(code::kOutOfMemory, "no memory for " + std::to_string(pages) + " KV pages of " + std::to_string(bytes) +
                                        " bytes; a smaller kvCache may fit");
  }
}

namespace {

/// Where a vector's elements lie in the part of its slab (kernels.h): at(i) is element 16 i; of the 15 after
/// it every second one is kPair elements further on, and each odd one kNext after its even one.
struct KeyPlace {
  template <class T>
  static T* at(T* keys, int32_t slot, int32_t i, int32_t dim) {
    const size_t panel = static_cast<size_t>(slot / 16) * dim * 16, lane = slot % 16;
    return keys + panel + static_cast<size_t>(i) * 256 + lane * (sizeof(T) == 4 ? 1 : 2);
  }
  template <class T>
  static constexpr size_t kPair = 32;
  template <class T>
  static constexpr size_t kNext = sizeof(T) == 4 ? 16 : 1;
};
struct ValuePlace {
  template <class T>
  static T* at(T* values, int32_t slot, int32_t i, int32_t) {
    const size_t row = sizeof(T) == 4 ? slot * 16 : slot / 2 * 32 + slot % 2;
    return values + static_cast<size_t>(i) * 16 * kPageSlots + row;
  }
  template <class T>
  static constexpr size_t kPair = sizeof(T) == 4 ? 2 : 4;
  template <class T>
  static constexpr size_t kNext = sizeof(T) == 4 ? 1 : 2;
};

template <class Place, class T, class Round>
void write_vector(T* part, int32_t slot, const float* x, int32_t head_dim, int32_t dim, Round round) {
  constexpr int32_t kPiece = 128;
  T rounded[kPiece];
  for (int32_t first = 0; first < dim; first += kPiece) {
    const int32_t count = std::min(kPiece, head_dim - first), padded_count = std::min(kPiece, dim - first);
    for (int32_t j = 0; j < count; j++) rounded[j] = round(x[first + j]);
    for (int32_t j = count; j < padded_count; j++) rounded[j] = 0;
    for (int32_t i = 0; i < padded_count; i += 16) {
      T* to = Place::at(part, slot, (first + i) / 16, dim);
      for (int32_t j = 0; j < 16; j += 2) {
        to[j / 2 * Place::template kPair<T>] = rounded[i + j];
        to[j / 2 * Place::template kPair<T> + Place::template kNext<T>] = rounded[i + j + 1];
      }
    }
  }
}

/// max|x| / 127; NaN when x holds a NaN or infinity.
float int8_scale(const float* x, int32_t n) {
  float top = 0, poison = 0;
  for (int32_t i = 0; i < n; i++) {
    top = std::max(top, std::abs(x[i]));
    poison += x[i] * 0.0f;
  }
  return top / 127 + poison;
}

}  // namespace

template <class Place>
void KvPages::write(std::byte* part, float* scale, int32_t slot, const float* x) const {
  if (format_ == KvFormat::f32) {
    write_vector<Place>(reinterpret_cast<float*>(part), slot, x, head_dim_, dim_, [](float v) { return v; });
  } else if (format_ == KvFormat::bf16) {
    write_vector<Place>(reinterpret_cast<uint16_t*>(part), slot, x, head_dim_, dim_, f32_to_bf16);
  } else {
    const float step = int8_scale(x, head_dim_);
    *scale = step;
    const bool rounds = step > 0;  // neither 0 nor NaN
    const auto round = [=](float v) {
      // Adding 1.5 · 2^23 rounds to the nearest integer, even on a tie. A subnormal scale may be far from max|x| / 127.
      const float q = rounds ? (v / step + 12582912.0f) - 12582912.0f : 0.0f;
      return static_cast<int8_t>(std::max(std::min(q, 127.0f), -127.0f));
    };
    write_vector<Place>(reinterpret_cast<int8_t*>(part), slot, x, head_dim_, dim_, round);
  }
}

void KvPages::write_key(std::byte* slab, int32_t slot, const float* x) const {
  write<KeyPlace>(slab, scales(slab) + slot, slot, x);
}

void KvPages::write_value(std::byte* slab, int32_t slot, const float* x) const {
  write<ValuePlace>(slab + part_bytes_, scales(slab) + kPageSlots + slot, slot, x);
}

}  // namespace sdar::cpu
