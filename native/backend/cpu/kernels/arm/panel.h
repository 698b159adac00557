// One panel of packed weights times m rows of activations on 64-bit Arm. f32 sums add k, or groups, in ascending order
// whatever the tile. Of bf16 (where there is bfmmla) two columns × two rows are multiplied at once.
#pragma once
#include "backend/cpu/kernels/arm/quantised.h"
#include "backend/cpu/kernels/arm/tile.h"

namespace sdar::cpu {
namespace {

struct TileF32 {
  static constexpr Shape kShape{5, 1, 2};

  template <int Lane, int R, int C>
  static SDAR_INLINE void step(Tile& t, const F (&a)[R], F (&f)[R][C]) {
    fetch<C>(t.w);
    SDAR_UNROLL for (int c = 0; c < C; c++) {
      const F w = load(reinterpret_cast<const float*>(t.w) + c * kLanes);
      SDAR_UNROLL for (int r = 0; r < R; r++) f[r][c] = vfmaq_laneq_f32(f[r][c], w, a[r], Lane);
    }
    t.w += kRow;
  }

  template <int R, int C>
  static void run(Tile t, Sums out) {
    F f[R][C], a[R];
    clear(f);
    int64_t k = t.k;
    for (; k >= 4; k -= 4, t.a += 16) {
      load_rows(t, a);
      step<0>(t, a, f);
      step<1>(t, a, f);
      step<2>(t, a, f);
      step<3>(t, a, f);
    }
    for (; k > 0; k--, t.a += 4) {
      SDAR_UNROLL for (int r = 0; r < R; r++) a[r] = vld1q_dup_f32(reinterpret_cast<const float*>(t.a + r * t.stride));
      step<0>(t, a, f);
    }
    keep(f, out);
  }
};

struct TileBf16 {
#ifdef SDAR_BF16
  static constexpr Shape kShape{6, 2, 2};

  /// Sums of two columns × two rows.
  template <int P, int C>
  static SDAR_INLINE void step(Tile& t, const int64x2_t (&a)[P], F (&f)[P][2 * C]) {
    fetch<C>(t.w);
    fetch<C>(t.w + kRow);
    SDAR_UNROLL for (int c = 0; c < C; c++) {
      const I low = vld1q_s32(reinterpret_cast<const int32_t*>(t.w) + c * kLanes);
      const I high = vld1q_s32(reinterpret_cast<const int32_t*>(t.w + kRow) + c * kLanes);
      const bfloat16x8_t left = vreinterpretq_bf16_s32(vzip1q_s32(low, high));
      const bfloat16x8_t right = vreinterpretq_bf16_s32(vzip2q_s32(low, high));
      SDAR_UNROLL for (int p = 0; p < P; p++) {
        f[p][2 * c] = vbfmmlaq_f32(f[p][2 * c], left, vreinterpretq_bf16_s64(a[p]));
        f[p][2 * c + 1] = vbfmmlaq_f32(f[p][2 * c + 1], right, vreinterpretq_bf16_s64(a[p]));
      }
    }
    t.w += 2 * kRow;
  }

  template <int R, int C>
  static void run(Tile t, Sums out) {
    constexpr int P = (R + 1) / 2;
    F f[P][2 * C];
    int64x2_t first[P], second[P];
    clear(f);
    for (int64_t k = 0; k < t.k; k += 8, t.a += 16) {
      load_pairs<R>(t, first, second);
      step<P, C>(t, first, f);
      step<P, C>(t, second, f);
    }
    SDAR_UNROLL for (int r = 0; r < R; r++) {
      SDAR_UNROLL for (int c = 0; c < C; c++) {
        const F left = f[r / 2][2 * c], right = f[r / 2][2 * c + 1];
        store(out[r] + c * kLanes, r % 2 ? vuzp2q_f32(left, right) : vuzp1q_f32(left, right));
      }
    }
  }
#else  // a bf16 in the upper half of a lane is the f32
  static constexpr Shape kShape{5, 1, 2};

  template <int Lane, int R, int C>
  static SDAR_INLINE void step(Tile& t, const F (&a)[R], F (&f)[R][C]) {
    fetch<C>(t.w);
    const I upper = set1(static_cast<int32_t>(0xffff0000));
    SDAR_UNROLL for (int c = 0; c < C; c++) {
      const I w = vld1q_s32(reinterpret_cast<const int32_t*>(t.w) + c * kLanes);
      const F even = from_bits(shift_left<16>(w)), odd = from_bits(bit_and(w, upper));
      SDAR_UNROLL for (int r = 0; r < R; r++) f[r][c] = vfmaq_laneq_f32(f[r][c], even, a[r], Lane);
      SDAR_UNROLL for (int r = 0; r < R; r++) f[r][c] = vfmaq_laneq_f32(f[r][c], odd, a[r], Lane + 1);
    }
    t.w += kRow;
  }

  template <int R, int C>
  static void run(Tile t, Sums out) {
    F f[R][C], a[R];
    clear(f);
    for (int64_t k = 0; k < t.k; k += 4, t.a += 16) {
      load_rows(t, a);
      step<0>(t, a, f);
      step<2>(t, a, f);
    }
    keep(f, out);
  }
#endif
};

template <class Format, int R>
void run_tile(const Tile& t, Sums out) {
  if constexpr (R <= Format::kShape.whole) {
    Format::template run<R, kQuads>(t, out);
  } else if constexpr (R <= Format::kShape.most) {
    Format::template run<R, kQuads / 2>(t, out);
    Tile half = t;
    half.w += kRow / 2;
    Format::template run<R, kQuads / 2>(half, reinterpret_cast<Sums>(&out[0][kPanel / 2]));
  }
}

template <class Format>
void run_panel(const PanelJob& job) {
  constexpr Shape shape = Format::kShape;
  float y[kTileRows][kPanel];
  const int units = (job.m + shape.unit - 1) / shape.unit, most = shape.most / shape.unit;
  const int tiles = (units + most - 1) / most;
  for (int i = 0, row = 0, rows = 0; i < tiles; i++, row += rows) {
    rows = (units / tiles + (i < units % tiles)) * shape.unit;
    rows = rows < job.m - row ? rows : job.m - row;
    Tile t{};
    t.w = job.panel;
    t.k = job.k;
    t.a = job.a.data + row * job.a.stride;
    t.stride = job.a.stride;
    t.a_scales = job.a.scales + row;
    t.offsets = job.a.offsets + row;
    t.groups = groups_of(job.format, job.k);
    t.scale_stride = job.a.scale_stride;
    constexpr void (*kRun[])(const Tile&, Sums) = {run_tile<Format, 1>, run_tile<Format, 2>, run_tile<Format, 3>,
                                                   run_tile<Format, 4>, run_tile<Format, 5>, run_tile<Format, 6>};
    kRun[rows - 1](t, y);
    for (int r = 0; r < rows; r++) finish_row(job.epilogue, y[r], job.columns, job.out + (row + r) * job.out_stride);
  }
}

void panel(const PanelJob& job) {
  switch (job.format) {
    case WeightFormat::f32:
      return run_panel<TileF32>(job);
    case WeightFormat::bf16:
      return run_panel<TileBf16>(job);
    case WeightFormat::int8:
      return run_panel<TileQuantised<WeightFormat::int8>>(job);
    case WeightFormat::int4:
      return run_panel<TileQuantised<WeightFormat::int4>>(job);
  }
}

}  // namespace
}  // namespace sdar::cpu
