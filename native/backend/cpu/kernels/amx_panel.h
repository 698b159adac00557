// Panels of packed weights times m rows on AMX tiles: blocks of 32 rows × 32 columns, two tiles of rows times two of
// columns (one of rows up to 16). Tiles are loaded straight out of the packed panel and of the rows of activations,
// whose stride is an odd number of cache lines, so that 32 rows of one k fall into 32 cache sets.
//
// Every m takes this path, and the order of a row's sum is that of its instructions: quantised, int32 within a group
// (exact) and f32 over the groups in ascending order with the formula of x86/panel.h, so its results are those of the
// AVX-512 sets, bit for bit; bf16, as tdpbf16ps adds 32 k to the sum.
//
// Expected share of the tiles' peak (16 cycles for a product of full tiles: 2048 int8 or 1024 bf16 operations a cycle)
// at m = 512, not yet measured: cycles per block and group of k, for 2 loads, 1 store, 2 vector operations a cycle. At
// best all run at once; at worst products, loads and the larger of the rest in turn.
//             products     loads            stores       vector         best    worst
//   int8      8·16 = 128   (128+192)/2=160  64+64 = 128  32·2·4/2=128   80 %    128/416 = 31 %
//   int4      4·16 = 64    (64+160)/2=112   64+64 = 128  32·2·3/2=96    50 %    64/304 = 21 %
//   bf16/256  32·16 = 512  (512+64)/2=288   64           0              100 %   512/864 = 59 %
// The scaling of a group stands between the products of the next, so that they overlap. Of L2, a block
// asks 16 KB of activations per 512 k of int8, 26 bytes a cycle at best, of 48; its weights are in the nearest.
#pragma once
#include "backend/cpu/kernels/amx_tiles.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/x86/panel.h"

namespace sdar::cpu {
namespace {

/// Kernels::panel_group_bytes: together with the activations below, what the second cache (2 MB) should hold.
constexpr int64_t kPanelGroupBytes = 512 << 10;

template <class Tiles>
class TilePanels {
 public:
  static void run(const PanelJob& job) {
    if (job.format == WeightFormat::f32) {  // tiles have no f32
      PanelJob one = job;
      one.panels = 1;
      for (int32_t p = 0; p < job.panels; p++) {
        place(job, p, &one.panel, &one.out, &one.columns);
        panel(one);
      }
      return;
    }
    TilePanels<Tiles> state(job);
    state.all();
    Tiles::release();
  }

 private:
  static constexpr int kTile = 16;       // rows, and columns
  static constexpr int kBlock = 32;      // rows of a block
  static constexpr int kMostBlocks = 8;  // that pass over a stretch of a panel in turn
  static constexpr int kStretch = 512;   // k of a quantised stretch: 16 KB of weights stay in L1
  static constexpr int kStretchBf16 = 256;
  static constexpr int64_t kActivationBytes = 1 << 20;  // of blocks that pass over the panels together
  // Fetched ahead while m <= kTile, when a panel comes straight from memory: what an int4 stretch unpacks at once.
  static constexpr int64_t kAhead = 9216;

  /// 32 rows at most, from row `first`.
  struct Block {
    int32_t first;
    int32_t rows;
    float (*sums)[kPanel];
  };

  /// A group's integers that wait to be scaled: f += (sum + offset) · (scale of the row · scale of the column).
  struct Pending {
    const int32_t (*sums)[kPanel];
    const float* w_scales;
    const float* a_scales;
    const int32_t* offsets;
    float (*f)[kPanel];
    int next = 0, rows = 0;
  };

  /// What to fetch while the tiles work: near, into the first cache; else into the second, up to `end`.
  struct Fetcher {
    const char* p;
    const char* end;
    int64_t lines;  ///< per 64 bytes of k (a step of the tiles)
    bool near;
  };

  explicit TilePanels(const PanelJob& job)
      : job_(job), bytes_(static_cast<int64_t>(panel_bytes(job.format, job.k))), near_(job.m <= kTile) {}

  static constexpr int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
  static constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

  static void place(const PanelJob& job, int32_t index, const std::byte** panel, float** out, int32_t* columns) {
    const int32_t width = job.epilogue == Epilogue::silu_mul ? kPanel / 2 : kPanel;
    *panel = job.panel + index * panel_bytes(job.format, job.k);
    *out = job.out + index * width;
    *columns = static_cast<int32_t>(at_most(width, job.columns - index * width));
  }

  void all() {
    const int64_t blocks = divide_up(job_.m, kBlock);
    const int64_t fit = kActivationBytes / (kBlock * static_cast<int64_t>(job_.a.stride));
    const int64_t most = fit < 1 ? 1 : at_most(fit, kMostBlocks);
    const int64_t passes = divide_up(blocks, most);
    for (int64_t pass = 0; pass < passes; pass++) {
      const int64_t begin = blocks * pass / passes, end = blocks * (pass + 1) / passes;
      for (int32_t p = 0; p < job_.panels; p++) {
        const std::byte* panel;
        float* out;
        int32_t columns;
        place(job_, p, &panel, &out, &columns);
        start_fetching(panel, begin, end, blocks);
        multiply(panel, begin, static_cast<int>(end - begin));
        for (int64_t row = begin * kBlock; row < at_most(end * kBlock, job_.m); row++) {
          finish_row(job_.epilogue, sums_[row - begin * kBlock], columns, out + row * job_.out_stride);
        }
      }
    }
  }

  void start_fetching(const std::byte* panel, int64_t begin, int64_t end, int64_t blocks) {
    const int64_t k_per_step = job_.format == WeightFormat::bf16 ? 32 : 64;
    const char* p = reinterpret_cast<const char*>(panel);
    const int64_t lines = divide_up(bytes_ / 64, job_.k / k_per_step);
    if (near_) {
      fetch_ = {p + kAhead, p + kAhead + bytes_, lines, true};
    } else {  // these blocks' share of the panel at this place in the next group
      p += job_.panels * bytes_;
      fetch_ = {p + bytes_ * begin / blocks / 64 * 64, p + bytes_ * end / blocks, divide_up(lines, blocks), false};
    }
  }
  SDAR_INLINE void fetch() {
    for (int64_t i = 0; i < fetch_.lines && fetch_.p < fetch_.end; i++, fetch_.p += 64) {
      if (fetch_.near) {
        _mm_prefetch(fetch_.p, _MM_HINT_T0);
      } else {
        _mm_prefetch(fetch_.p, _MM_HINT_T1);
      }
    }
  }

  /// sums_ = `count` blocks times a panel.
  void multiply(const std::byte* panel, int64_t first_block, int count) {
    Block blocks[kMostBlocks];
    for (int b = 0; b < count; b++) {
      const int32_t first = static_cast<int32_t>(first_block + b) * kBlock;
      blocks[b] = {first, static_cast<int32_t>(at_most(kBlock, job_.m - first)), sums_ + b * kBlock};
    }
    const bool bf16 = job_.format == WeightFormat::bf16;
    if (!bf16) std::memset(sums_, 0, sizeof sums_[0] * static_cast<size_t>(count * kBlock));
    const int64_t stretch = !bf16 ? kStretch : count > 1 ? kStretchBf16 : job_.k;
    for (int64_t k = 0; k < job_.k; k += stretch) {
      const int64_t end = at_most(k + stretch, job_.k);
      if (job_.format == WeightFormat::int4) unpack(panel, k, end);
      for (int b = 0; b < count; b++) {
        configure(blocks[b].rows);
        if (blocks[b].rows > kTile) {
          multiply_stretch<true>(blocks[b], panel, k, end);
        } else {
          multiply_stretch<false>(blocks[b], panel, k, end);
        }
      }
    }
    if (job_.format == WeightFormat::int8) scale<true>(kBlock);
    if (job_.format == WeightFormat::int4) scale<false>(kBlock);
  }

  void configure(int32_t rows) {
    if (rows == configured_) return;
    configured_ = rows;
    TileConfig config;
    for (int t = 0; t < 8; t++) {
      const bool upper = t == 0 || t == 1 || t == 4, lower = t == 2 || t == 3 || t == 5;
      const int64_t mine = upper ? at_most(rows, kTile) : lower ? rows - kTile : kTile;
      if (mine <= 0) continue;
      config.rows[t] = static_cast<uint8_t>(mine);
      config.bytes_per_row[t] = 64;
    }
    Tiles::configure(config);
  }

  template <bool two>
  SDAR_INLINE void multiply_stretch(const Block& block, const std::byte* panel, int64_t k, int64_t end) {
    switch (job_.format) {
      case WeightFormat::bf16:
        return floats<two>(block, panel, k, end);
      case WeightFormat::int8:
        return integers<two, WeightFormat::int8>(block, panel, k, end);
      default:
        return integers<two, WeightFormat::int4>(block, panel, k, end);
    }
  }

  enum class Product { bf16, int8_signed, int8_unsigned };

  template <Product P, int D, int A, int B>
  SDAR_INLINE static void product() {
    if constexpr (P == Product::bf16) Tiles::template multiply_bf16<D, A, B>();
    if constexpr (P == Product::int8_signed) Tiles::template multiply_signed<D, A, B>();
    if constexpr (P == Product::int8_unsigned) Tiles::template multiply_unsigned<D, A, B>();
  }

  /// Tiles 0…3 += 64 bytes of each row (tiles 4, 5) times the same k of 32 columns (6, 7); `part` pending rows are
  /// scaled after each product.
  template <bool two, Product P>
  SDAR_INLINE void step(const std::byte* a, const std::byte* w, int part) {
    const auto stride = static_cast<int64_t>(job_.a.stride);
    Tiles::template load<4>(a, stride);
    Tiles::template load<6>(w, kRow);
    product<P, 0, 4, 6>();
    scale<P == Product::int8_unsigned>(part);
    Tiles::template load<7>(w + kRow / 2, kRow);
    product<P, 1, 4, 7>();
    scale<P == Product::int8_unsigned>(part);
    if constexpr (two) {
      Tiles::template load<5>(a + kTile * stride, stride);
      product<P, 2, 5, 6>();
      scale<P == Product::int8_unsigned>(part);
      product<P, 3, 5, 7>();
      scale<P == Product::int8_unsigned>(part);
    }
    fetch();
  }

  template <bool two>
  SDAR_INLINE static void clear() {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    if constexpr (two) Tiles::template zero<2>();
    if constexpr (two) Tiles::template zero<3>();
  }
  template <bool two>
  SDAR_INLINE static void keep(void* sums) {  // [rows][32] of 4 bytes
    auto* p = static_cast<std::byte*>(sums);
    Tiles::template store<0>(p, kRow);
    Tiles::template store<1>(p + kRow / 2, kRow);
    if constexpr (two) Tiles::template store<2>(p + kTile * kRow, kRow);
    if constexpr (two) Tiles::template store<3>(p + kTile * kRow + kRow / 2, kRow);
  }

  /// The sums stay in tiles from stretch to stretch, or are laid down between them.
  template <bool two>
  void floats(const Block& block, const std::byte* panel, int64_t k, int64_t end) {
    const std::byte* a = job_.a.data + static_cast<size_t>(block.first) * job_.a.stride;
    if (k == 0) {
      clear<two>();
    } else {
      const auto* p = reinterpret_cast<const std::byte*>(block.sums);
      Tiles::template load<0>(p, kRow);
      Tiles::template load<1>(p + kRow / 2, kRow);
      if constexpr (two) Tiles::template load<2>(p + kTile * kRow, kRow);
      if constexpr (two) Tiles::template load<3>(p + kTile * kRow + kRow / 2, kRow);
    }
    for (; k < end; k += 32) step<two, Product::bf16>(a + 2 * k, panel + k / 2 * kRow, 0);
    keep<two>(block.sums);
  }

  template <bool two, WeightFormat format>
  void integers(const Block& block, const std::byte* panel, int64_t begin, int64_t end) {
    constexpr bool int4 = format == WeightFormat::int4;
    constexpr int64_t group = int4 ? 64 : 128;
    constexpr int64_t packed_row = int4 ? 8 : 4;  // k per kRow bytes
    const std::byte* a = job_.a.data + static_cast<size_t>(block.first) * job_.a.stride;
    for (int64_t k = begin; k < end; k += group) {
      const int64_t g = k / group, n = at_most(group, end - k);
      const std::byte* packed = panel + k / packed_row * kRow + g * kRow;
      const std::byte* w = int4 ? unpacked_ + (k - begin) * kPanel : packed;
      // All that wait are scaled before the next sums are laid down.
      const int part = static_cast<int>(divide_up(pending_.rows, n / 64 * (two ? 4 : 2)));
      clear<two>();
      for (int64_t i = 0; i < n; i += 64) {
        step<two, int4 ? Product::int8_signed : Product::int8_unsigned>(a + k + i, w + i * kPanel, part);
      }
      keep<two>(integers_);
      const int64_t at = g * job_.a.scale_stride + block.first;
      pending_ = {integers_,          reinterpret_cast<const float*>(packed + n / packed_row * kRow),
                  job_.a.scales + at, job_.a.offsets + at,
                  block.sums,         0,
                  block.rows};
    }
  }

  /// The next n rows that wait.
  template <bool offsets>
  SDAR_INLINE void scale(int n) {
    const Pending p = pending_;  // a copy stays in registers: stores through p.f might change the member
    const int end = static_cast<int>(at_most(p.next + n, p.rows));
    if (p.next >= end) return;
    const F w0 = load(p.w_scales), w1 = load(p.w_scales + kTile);
    for (int r = p.next; r < end; r++) {
      const F a = set1(p.a_scales[r]);
      I x0 = load_bits(p.sums[r]), x1 = load_bits(p.sums[r] + kTile);
      if constexpr (offsets) {
        const I offset = set1(p.offsets[r]);
        x0 = add(x0, offset), x1 = add(x1, offset);
      }
      store(p.f[r], fma(to_float(x0), mul(a, w0), load(p.f[r])));
      store(p.f[r] + kTile, fma(to_float(x1), mul(a, w1), load(p.f[r] + kTile)));
    }
    pending_.next = end;
  }

  /// int4 of a stretch as int8 without the zero point, in int8's order.
  void unpack(const std::byte* panel, int64_t k, int64_t end) {
    const I nibble = set1(0x0f0f0f0f), zero_point = set1(0x08080808);
    std::byte* to = unpacked_;
    for (; k < end; k += 64) {
      const std::byte* w = panel + k / 64 * static_cast<int64_t>(group_bytes(WeightFormat::int4));
      for (int i = 0; i < 8; i++, w += kRow, to += 2 * kRow) {
        for (int half = 0; half < kRow; half += kRow / 2) {
          const I both = load_bits(w + half);
          const I low = bit_and(both, nibble), high = bit_and(shift_right16<4>(both), nibble);
          store_bits(to + half, _mm512_sub_epi8(low, zero_point));
          store_bits(to + kRow + half, _mm512_sub_epi8(high, zero_point));
        }
      }
    }
  }

  const PanelJob& job_;
  const int64_t bytes_;  ///< of a panel
  const bool near_;
  int32_t configured_ = 0;  ///< rows of a block that the tiles are configured for
  Pending pending_{};
  Fetcher fetch_{};
  alignas(64) float sums_[kMostBlocks * kBlock][kPanel];
  alignas(64) int32_t integers_[kBlock][kPanel];
  alignas(64) std::byte unpacked_[kStretch * kPanel];
};

}  // namespace
}  // namespace sdar::cpu
