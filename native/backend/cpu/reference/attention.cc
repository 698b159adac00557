#include "backend/cpu/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "backend/cpu/reference/loops.h"
#include "util/error.h"
#include "util/half.h"

namespace sdar::cpu::reference {
namespace {

size_t vector_bytes(int32_t head_dim, KvFormat format) {
  const size_t n = static_cast<size_t>(head_dim);
  return format == KvFormat::f32 ? 4 * n : format == KvFormat::bf16 ? 2 * n : n + sizeof(float);
}

/// q[n] = x / scale to the nearest integer (even on a tie), scale = max|x| / 127, which is returned. When x holds a NaN
/// or infinity the scale is NaN, so that everything computed from it shows it.
float quantise(const float* x, int64_t n, int8_t* q) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::abs(x[i]));
  }
  const float scale = largest / 127.0f;
  if (!finite || scale == 0) {
    std::fill_n(q, n, int8_t{0});
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  for (int64_t i = 0; i < n; i++) {
    const long value = std::lrint(x[i] / scale);  // a subnormal scale may be too small by rounding: clamp
    q[i] = static_cast<int8_t>(std::clamp<long>(value, -127, 127));
  }
  return scale;
}

}  // namespace

void Attention::Free::operator()(std::byte* p) const { std::free(p); }

size_t Attention::page_bytes(const ModelShape& shape, KvFormat format) {
  return static_cast<size_t>(shape.layers) * 2 * shape.kv_heads * kPageSlots * vector_bytes(shape.head_dim, format);
}

void Attention::configure(const ModelShape& shape, const CacheShape& cache) {
  shape_ = shape;
  cache_ = cache;
  const size_t pages = static_cast<size_t>(cache.pages), bytes = page_bytes(shape, cache.format);
  const bool fits = pages <= std::numeric_limits<size_t>::max() / bytes;
  // calloc, so that pages take memory when they are first written
  pages_.reset(fits ? static_cast<std::byte*>(std::calloc(std::max<size_t>(pages, 1), bytes)) : nullptr);
  if (!pages_) {
    throw Error(code::kOutOfMemory, "no memory for " + std::to_string(pages) + " KV pages of " + std::to_string(bytes) +
                                        " bytes; a smaller kvCache may fit");
  }
  inverse_frequency_ = inverse_frequencies(shape);
}

void Attention::begin_step(std::span<const Segment> segments, int32_t rows) {
  segments_.assign(segments.begin(), segments.end());
  const size_t half = inverse_frequency_.size();
  const auto factor = static_cast<float>(shape_.rope_scaling.attention_factor);
  cos_.assign(rows * half, 0);
  sin_.assign(rows * half, 0);
  for (const Segment& s : segments) {
    for (int32_t r = 0; r < s.rows; r++) {
      for (size_t i = 0; i < half; i++) {
        const Rotation turn = rotation(inverse_frequency_[i], s.position_of(r), factor);
        cos_[(s.row + r) * half + i] = turn.cos;
        sin_[(s.row + r) * half + i] = turn.sin;
      }
    }
  }
}

void Attention::norm_and_rotate(float* head, const Weight& norm, int32_t row) const {
  rms_norm(head, packed(norm).vector(), shape_.head_dim, shape_.rms_eps, head);
  const size_t half = inverse_frequency_.size();
  const float *cos = &cos_[row * half], *sin = &sin_[row * half];
  for (size_t i = 0; i < half; i++) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

std::byte* Attention::vector_at(const Segment& segment, int32_t position, int32_t layer, bool value,
                                int32_t head) const {
  const int32_t per_page = tokens_per_page(segment.block_length);
  const size_t page = static_cast<size_t>(segment.pages[position / per_page]);
  const size_t vector = (((page * shape_.layers + layer) * 2 + value) * shape_.kv_heads + head) * kPageSlots +
                        static_cast<size_t>(position % per_page);
  return pages_.get() + vector * vector_bytes(shape_.head_dim, cache_.format);
}

void Attention::write(std::byte* to, const float* vector) const {
  const int32_t n = shape_.head_dim;
  if (cache_.format == KvFormat::f32) {
    std::memcpy(to, vector, n * sizeof(float));
  } else if (cache_.format == KvFormat::bf16) {
    for (int32_t i = 0; i < n; i++) {
      const uint16_t bits = f32_to_bf16(vector[i]);
      std::memcpy(to + 2 * i, &bits, sizeof bits);
    }
  } else {
    const float scale = quantise(vector, n, reinterpret_cast<int8_t*>(to));
    std::memcpy(to + n, &scale, sizeof scale);
  }
}

void Attention::read(const std::byte* from, float* vector) const {
  const int32_t n = shape_.head_dim;
  if (cache_.format == KvFormat::f32) {
    std::memcpy(vector, from, n * sizeof(float));
  } else if (cache_.format == KvFormat::bf16) {
    for (int32_t i = 0; i < n; i++) {
      uint16_t bits;
      std::memcpy(&bits, from + 2 * i, sizeof bits);
      vector[i] = bf16_to_f32(bits);
    }
  } else {
    float scale;
    std::memcpy(&scale, from + n, sizeof scale);
    for (int32_t i = 0; i < n; i++) vector[i] = scale * reinterpret_cast<const int8_t*>(from)[i];
  }
}

/// A vector as it comes back from a page.
void Attention::rounded(const float* vector, float* to) {
  written_.resize(vector_bytes(shape_.head_dim, cache_.format));
  write(written_.data(), vector);
  read(written_.data(), to);
}

namespace {
void add_bias(const Weight* bias, int32_t n, float* x) {
  for (int32_t i = 0; bias && i < n; i++) x[i] += packed(*bias).vector()[i];
}
}  // namespace

void Attention::run(const AttentionArgs& args) {
  const int32_t dim = shape_.head_dim, heads = shape_.heads, kv_heads = shape_.kv_heads;
  for (const Segment& s : segments_) {
    for (int32_t r = 0; r < s.rows; r++) {
      float* q = args.qkv + static_cast<size_t>(s.row + r) * (heads + 2 * kv_heads) * dim;
      float *k = q + heads * dim, *v = k + kv_heads * dim;
      add_bias(args.q_bias, heads * dim, q);
      add_bias(args.k_bias, kv_heads * dim, k);
      add_bias(args.v_bias, kv_heads * dim, v);
      for (int32_t h = 0; h < heads; h++) norm_and_rotate(q + h * dim, *args.q_norm, s.row + r);
      for (int32_t h = 0; h < kv_heads; h++) {
        norm_and_rotate(k + h * dim, *args.k_norm, s.row + r);
        if (!s.in_pages(r)) continue;
        write(vector_at(s, s.position + r, args.layer, false, h), k + h * dim);
        write(vector_at(s, s.position + r, args.layer, true, h), v + h * dim);
      }
    }
  }
  for (const Segment& s : segments_) {
    for (int32_t h = 0; h < kv_heads; h++) attend(s, h, args);
  }
}

/// All queries of the segment that read this KV head.
void Attention::attend(const Segment& segment, int32_t kv_head, const AttentionArgs& args) {
  const int32_t dim = shape_.head_dim, heads = shape_.heads, group = heads / shape_.kv_heads;
  const int32_t end = segment.end(), kv_heads = shape_.kv_heads;
  keys_.resize(static_cast<size_t>(end + 1) * dim);  // a mask row's own is the last it sees
  values_.resize(keys_.size());
  scores_.resize(end + 1);
  for (int32_t p = 0; p < end; p++) {
    read(vector_at(segment, p, args.layer, false, kv_head), &keys_[static_cast<size_t>(p) * dim]);
    read(vector_at(segment, p, args.layer, true, kv_head), &values_[static_cast<size_t>(p) * dim]);
  }
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<double> sum(dim);
  for (int32_t r = 0; r < segment.rows; r++) {
    const size_t row = static_cast<size_t>(segment.row + r);
    int32_t visible = segment.visible_end(r);
    std::vector<float> key, value;  // in whose place a mask row's own are
    if (!segment.in_pages(r)) {
      const size_t at = static_cast<size_t>(visible++) * dim;
      const float* own = args.qkv + (row * (heads + 2 * kv_heads) + heads + kv_head) * dim;
      key.assign(&keys_[at], &keys_[at] + dim);
      value.assign(&values_[at], &values_[at] + dim);
      rounded(own, &keys_[at]);
      rounded(own + kv_heads * dim, &values_[at]);
    }
    for (int32_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
      const float* q = args.qkv + (row * (heads + 2 * kv_heads) + h) * dim;
      for (int32_t p = 0; p < visible; p++) {
        scores_[p] = static_cast<float>(scale * dot(q, &keys_[static_cast<size_t>(p) * dim], dim));
      }
      const float max = *std::max_element(scores_.begin(), scores_.begin() + visible);
      double total = 0;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int32_t p = 0; p < visible; p++) {
        const double weight = std::exp(scores_[p] - max);
        total += weight;
        for (int32_t i = 0; i < dim; i++) sum[i] += weight * values_[static_cast<size_t>(p) * dim + i];
      }
      float* out = args.out + (row * heads + h) * dim;
      for (int32_t i = 0; i < dim; i++) out[i] = static_cast<float>(sum[i] / total);
    }
    if (key.empty()) continue;
    std::copy(key.begin(), key.end(), &keys_[static_cast<size_t>(visible - 1) * dim]);
    std::copy(value.begin(), value.end(), &values_[static_cast<size_t>(visible - 1) * dim]);
  }
}

}  // namespace sdar::cpu::reference
