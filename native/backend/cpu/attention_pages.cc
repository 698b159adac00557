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
constexpr size_t slab_bytes(int32_t head_dim, KvFormat format) {
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
  return static_cast<size_t>(shape.layers) * shape.kv_heads * slab_bytes(shape.head_dim, format);
}

void KvPages::configure(const ModelShape& shape, const CacheShape& cache) {
  format_ = cache.format;
  layers_ = shape.layers;
  head_dim_ = shape.head_dim;
  dim_ = padded(shape.head_dim);
  part_bytes_ = part_bytes(head_dim_, format_);
  slab_bytes_ = slab_bytes(head_dim_, format_);
  layer_bytes_ = slab_bytes_ * shape.kv_heads;
  const size_t bytes = page_bytes(shape, format_), pages = static_cast<size_t>(std::max<int64_t>(cache.pages, 0));
  if (pages > std::numeric_limits<size_t>::max() / std::max<size_t>(bytes, 1) || !memory_.reserve(pages * bytes)) {
    throw Error(code::kOutOfMemory, "no memory for " + std::to_string(pages) + " KV pages of " + std::to_string(bytes) +
                                        " bytes; a smaller kvCache may fit");
  }
}

/// Element 16 a + 2 b + c of x goes to part[first + a · steps[0] + b · steps[1] + c · steps[2]], counted in elements.
void KvPages::write(std::byte* part, std::byte* scale, size_t first, const size_t (&steps)[3], const float* x) const {
  const auto each = [&](auto* to, auto&& element) {
    for (int32_t a = 0; a < dim_ / 16; a++) {
      for (int32_t b = 0; b < 8; b++) {
        for (int32_t c = 0; c < 2; c++) {
          const int32_t i = 16 * a + 2 * b + c;
          to[first + a * steps[0] + b * steps[1] + c * steps[2]] = element(i < head_dim_ ? x[i] : 0.0f);
        }
      }
    }
  };
  if (format_ == KvFormat::f32) return each(reinterpret_cast<float*>(part), [](float v) { return v; });
  if (format_ == KvFormat::bf16) return each(reinterpret_cast<uint16_t*>(part), f32_to_bf16);
  float top = 0, poison = 0;
  for (int32_t i = 0; i < head_dim_; i++) {
    top = std::max(top, std::abs(x[i]));
    poison += x[i] * 0.0f;  // NaN once x holds a NaN or infinity
  }
  const float step = top / 127 + poison;
  std::memcpy(scale, &step, sizeof step);
  const bool rounds = step > 0;  // neither 0 nor NaN
  each(reinterpret_cast<int8_t*>(part), [&](float v) {
    return rounds ? static_cast<int8_t>(std::clamp(std::nearbyint(v / step), -127.0f, 127.0f)) : int8_t{0};
  });
}

void KvPages::write_key(std::byte* slab, int32_t slot, const float* x) const {
  const bool pairs = format_ != KvFormat::f32;
  const size_t panel = slot / 16, lane = slot % 16;
  write(slab, slab + 2 * part_bytes_ + slot * sizeof(float), panel * dim_ * 16 + lane * (pairs ? 2 : 1),
        {256, 32, pairs ? 1u : 16u}, x);
}

void KvPages::write_value(std::byte* slab, int32_t slot, const float* x) const {
  const bool pairs = format_ != KvFormat::f32;
  write(slab + part_bytes_, slab + 2 * part_bytes_ + (kPageSlots + slot) * sizeof(float),
        pairs ? slot / 2 * 32 + slot % 2 : slot * 16, {16 * kPageSlots, pairs ? 4u : 2u, pairs ? 2u : 1u}, x);
}

}  // namespace sdar::cpu
