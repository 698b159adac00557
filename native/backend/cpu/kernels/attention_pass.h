// The attention of kernels.h over a set of vector operations `Isa`. Included by one translation unit per
// instruction set, hence the unnamed namespace: nothing here may be shared between them.
//
// Isa: Vec (16 f32 lanes) and its operations; Operand, the type of q and of the softmax weights; kAccumulators, how
// many Vec sums fit in registers; multiply_pair, which adds a pair of products to a tile of sums.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/kernels/attention_rows.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/formats.h"
#include "backend/step.h"

namespace sdar::cpu {
namespace {

template <KvFormat F>
constexpr int kElementBytes = F == KvFormat::f32    ? 4
                              : F == KvFormat::bf16 ? 2
                                                    : 1;

/// sums[rows, 16 · panels] = factor[row] · sums (or 0) + a[rows, n] · panels. One accumulator per sum, n ascending.
/// A row of `a` every kStride elements, or every n when it is 0: known strides spare an address register per row.
template <class Isa, int kStride>
struct Product {
  const typename Isa::Operand* a;
  int n;
  const std::byte* panels;
  size_t panel_bytes;
  ptrdiff_t ahead;  ///< distance of the data to fetch meanwhile
  float* sums;
  int stride_sums;
  const float* factor;  ///< [rows] or null

  /// R rows from `row`, T panels from `panel`.
  template <KvFormat F, int R, int T>
  SDAR_INLINE void tile(int row, int panel) const {
    constexpr int kPairBytes = 32 * kElementBytes<F>;
    typename Isa::Vec acc[R][T];
    float* const c = sums + static_cast<ptrdiff_t>(row) * stride_sums + 16 * panel;
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) {
        acc[r][t] =
            factor ? Isa::mul(Isa::load(c + r * stride_sums + 16 * t), Isa::set1(factor[row + r])) : Isa::zero();
      }
    }
    const int stride = kStride ? kStride : n;
    const typename Isa::Operand* x = a + static_cast<ptrdiff_t>(row) * stride;
    const std::byte* b = panels + panel * panel_bytes;
    for (int i = 0; i + 1 < n; i += 2, x += 2, b += kPairBytes) {
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) {
        for (int line = 0; line < kPairBytes; line += 64) __builtin_prefetch(b + t * panel_bytes + ahead + line, 0, 2);
      }
      Isa::template multiply_pair<F, R, T, true>(acc, x, stride, b, panel_bytes);
    }
    if (n % 2) Isa::template multiply_pair<F, R, T, false>(acc, x, stride, b, panel_bytes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) Isa::store(c + r * stride_sums + 16 * t, acc[r][t]);
    }
  }

  template <KvFormat F, int R>
  SDAR_INLINE void rows(int row, int panel, int count) const {
    constexpr int T = Isa::kAccumulators / R > 4 ? 4 : Isa::kAccumulators / R;
    int t = 0;
    for (; t + T <= count; t += T) tile<F, R, T>(row, panel + t);
    if constexpr (T > 1) {
      for (; t < count; t++) tile<F, R, 1>(row, panel + t);
    }
  }

  /// Four panels stay in L1 while all rows pass over them.
  template <KvFormat F>
  SDAR_INLINE void run(int count_rows, int count_panels) {
    const ptrdiff_t next = ahead;
    for (int panel = 0; panel < count_panels; panel += 4) {
      const int count = count_panels - panel < 4 ? count_panels - panel : 4;
      ahead = next;
      for (int row = 0; row < count_rows;) {
        const int left = count_rows - row;
        int taken = 1;
        if (Isa::kAccumulators >= 16 && left >= 16) {
          rows<F, 16 <= Isa::kAccumulators ? 16 : 1>(row, panel, count);
          taken = 16;
        } else if (Isa::kAccumulators >= 8 && left >= 8) {
          rows<F, 8 <= Isa::kAccumulators ? 8 : 1>(row, panel, count);
          taken = 8;
        } else if (Isa::kAccumulators >= 4 && left >= 4) {
          rows<F, 4 <= Isa::kAccumulators ? 4 : 1>(row, panel, count);
          taken = 4;
        } else if (left >= 2) {
          rows<F, 2>(row, panel, count);
          taken = 2;
        } else {
          rows<F, 1>(row, panel, count);
        }
        row += taken;
        ahead = 0;
      }
    }
  }
};

/// scores = q · keys of so many panels.
template <class Isa, KvFormat F, int kDim>
void score(const PagePass& p, const std::byte* keys, int panels, ptrdiff_t ahead) {
  Product<Isa, kDim> scores{static_cast<const typename Isa::Operand*>(p.q),
                            p.dim,
                            keys,
                            static_cast<size_t>(p.dim) * 16 * kElementBytes<F>,
                            ahead,
                            p.scores,
                            kPageSlots,
                            nullptr};
  scores.template run<F>(p.rows, panels);
}

template <class Isa, KvFormat F>
void page_pass(const PagePass& p) {
  using Vec = typename Isa::Vec;
  const size_t part = static_cast<size_t>(kPageSlots) * p.dim * kElementBytes<F>;
  const std::byte *keys = p.slab, *values = keys + part;
  const float *key_scales = reinterpret_cast<const float*>(values + part), *value_scales = key_scales + kPageSlots;
  const ptrdiff_t ahead = p.next ? p.next - p.slab : 0;
  if constexpr (F == KvFormat::int8) {
    for (int line = 0; line < 2 * kPageSlots; line += 16) __builtin_prefetch(key_scales + ahead / 4 + line, 0, 2);
  }
  const int panels = (p.keys + 15) / 16;
  const int tail = p.keys - 16 * (panels - 1);  // lanes of the last panel that count

  if (p.dim == 128) {
    score<Isa, F, 128>(p, keys, panels, ahead);
  } else if (p.dim == 64) {
    score<Isa, F, 64>(p, keys, panels, ahead);
  } else {
    score<Isa, F, 0>(p, keys, panels, ahead);
  }

  for (int r = 0; r < p.rows; r++) {
    float* s = p.scores + r * kPageSlots;
    Vec top = Isa::set1(-__builtin_inff());
    for (int t = 0; t < panels; t++) {
      Vec x = Isa::load(s + 16 * t);
      if constexpr (F == KvFormat::int8) {
        x = Isa::mul(x, Isa::load(key_scales + 16 * t));
        Isa::store(s + 16 * t, x);
      }
      top = Isa::max(t + 1 == panels ? Isa::keep(x, tail, -__builtin_inff()) : x, top);
    }
    const float max = Isa::max_lane(top);
    p.correction[r] = p.max[r];
    p.max[r] = !p.first && p.max[r] > max ? p.max[r] : max;
  }
  if (!p.first) {
    for (int r = 0; r < p.rows; r += 16) {
      Isa::store(p.correction + r, Isa::exp2(Isa::sub(Isa::load(p.correction + r), Isa::load(p.max + r))));
    }
  }
  typename Isa::Operand* weights = Isa::weights(p);
  for (int r = 0; r < p.rows; r++) {
    const float* s = p.scores + r * kPageSlots;
    const Vec max = Isa::set1(p.max[r]);
    float* const sums = p.sum + 16 * r;
    Vec sum = p.first ? Isa::zero() : Isa::mul(Isa::load(sums), Isa::set1(p.correction[r]));
    for (int t = 0; t < panels; t++) {
      const int count = t + 1 == panels ? tail : 16;
      Vec w = Isa::exp2(Isa::sub(Isa::load(s + 16 * t), max));
      if (count < 16) w = Isa::keep(w, count, 0.0f);
      sum = Isa::add(sum, w);
      if constexpr (F == KvFormat::int8) {
        w = Isa::mul(w, Isa::load(value_scales + 16 * t));
        if (count < 16) w = Isa::keep(w, count, 0.0f);
      }
      Isa::store_operand(weights + r * kPageSlots + 16 * t, w);
    }
    Isa::store(sums, sum);
  }

  Product<Isa, kPageSlots> output{weights, p.keys, values, size_t{16} * kPageSlots * kElementBytes<F>,
                                  ahead,   p.acc,  p.dim,  p.first ? nullptr : p.correction};
  output.template run<F>(p.rows, p.dim / 16);
}

/// The operations of sets whose products are f32: Base plus a pair of multiply-adds.
template <class Base>
struct FloatOperands : Base {
  using Vec = typename Base::Vec;
  using Operand = float;
  static Operand* weights(const PagePass& p) { return p.scores; }
  static SDAR_INLINE void store_operand(float* to, Vec x) { Base::store(to, x); }

  template <KvFormat F, int R, int T, bool Both>
  static SDAR_INLINE void multiply_pair(Vec (&acc)[R][T], const float* x, int stride, const std::byte* b,
                                        size_t panel_bytes) {
    Vec even[T], odd[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) Base::template load_pair<F>(b + t * panel_bytes, even[t], odd[t]);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec a = Base::set1(x[r * stride]);
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) acc[r][t] = Base::fma(a, even[t], acc[r][t]);
    }
    if constexpr (Both) {
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const Vec a = Base::set1(x[r * stride + 1]);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) acc[r][t] = Base::fma(a, odd[t], acc[r][t]);
      }
    }
  }
};

/// `Wide` computes on f32 pages, `Paired` on bf16 and int8 pages, with bf16 operands if `bf16`.
template <class Wide, class Paired>
constexpr AttentionKernels make_attention(bool bf16) {
  return {{{page_pass<Wide, KvFormat::f32>, false},
           {page_pass<Paired, KvFormat::bf16>, bf16},
           {page_pass<Paired, KvFormat::int8>, bf16}},
          norm_and_rotate,
          divide};
}

}  // namespace
}  // namespace sdar::cpu
