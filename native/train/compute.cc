#include "train/compute.h"

#include "backend/cpu/cpu.h"
#include "util/machine.h"

namespace sdar::train {
namespace {

constexpr int64_t kBlockM = 192, kBlockN = 1280;
constexpr int64_t kMostShared = int64_t{1} << 24;  ///< units of the right operand that are packed for all workers
constexpr int64_t kPackColumns = 128;              ///< that a worker packs at once

int64_t parts_of(int64_t x, int64_t most) { return (x + most - 1) / most; }
int64_t round_up(int64_t x, int64_t to) { return parts_of(x, to) * to; }

View from(const View& view, int64_t i, int64_t j) {
  return {view.data.at(i * view.row + j * view.column), view.row, view.column};
}
View turned(const View& view) { return {view.data, view.column, view.row}; }

/// What a worker multiplies: rows i0 … and columns j0 … of the output.
struct Block {
  int64_t i0, rows, j0, columns;
};

class Product {
 public:
  Product(Compute& compute, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t stride,
          const float* onto)
      : compute_(compute),
        products_(compute.products()),
        m_(m),
        n_(n),
        k_(k),
        a_(a),
        b_(b),
        c_(c),
        stride_(stride),
        onto_(onto) {}

  void run() {
    // Few rows: packing the right operand is most of the work, so it is split by columns, each packed once.
    if (m_ <= kBlockM) return run_split();
    const int64_t most = std::max(products_.tile_columns * int64_t{1},
                                  kMostShared / steps(k_) / products_.tile_columns * products_.tile_columns);
    for (int64_t j0 = 0; j0 < n_; j0 += most) run_shared(j0, std::min(most, n_ - j0));
  }

 private:
  int64_t steps(int64_t depth) const { return parts_of(depth, products_.step); }
  int64_t wide(int64_t columns) const { return round_up(columns, products_.tile_columns); }
  int64_t high(int64_t rows) const { return round_up(rows, products_.tile_rows); }
  int64_t block_steps() const { return steps(std::min(k_, kBlockK)); }
  /// Of the left operand's panels, which the right one's follow at the start of a cache line.
  int64_t left_floats(int64_t rows) const { return round_up(high(rows) * block_steps(), 16); }
  int64_t edge() const { return int64_t{products_.tile_rows} * products_.tile_columns; }

  /// body(first, number) for `count` things in tiles of `tile`, in `parts` that differ by a tile at most.
  static std::pair<int64_t, int64_t> part(int64_t index, int64_t parts, int64_t count, int64_t tile) {
    const int64_t tiles = parts_of(count, tile), begin = tiles * index / parts * tile;
    return {begin, std::min(count, tiles * (index + 1) / parts * tile) - begin};
  }
  /// Parts of rows or columns for `others` parts of the other: how outputs are cut may follow the threads, since which
  /// block an element is in does not change its sum.
  int64_t cut(int64_t count, int64_t most, int64_t tile, int64_t others) const {
    int64_t parts = parts_of(count, most);
    const int64_t threads = compute_.threads();
    if (threads > 1 && parts * others < 8 * threads)
      parts = parts_of(round_up(std::max(parts * others, 2 * threads), threads), others);
    return std::clamp<int64_t>(parts, 1, parts_of(count, tile));
  }

  void run_split() {
    const int64_t across = cut(n_, 256, products_.tile_columns, 1);
    const int64_t most = (parts_of(n_, products_.tile_columns) + across - 1) / across * products_.tile_columns;
    const int64_t left = left_floats(m_), right = most * block_steps();
    compute_.with_scratch(across, left + right + edge(), [&](int64_t index, float* scratch) {
      const auto [j0, columns] = part(index, across, n_, products_.tile_columns);
      for (int64_t p0 = 0; p0 < k_; p0 += kBlockK) {
        const int64_t depth = std::min(kBlockK, k_ - p0);
        products_.pack_right(turned(from(b_, p0, j0)), columns, depth, scratch + left);
        multiply_block({0, m_, j0, columns}, p0, depth, scratch, scratch + left, scratch + left + right);
      }
    });
  }

  void run_shared(int64_t first, int64_t columns) {
    const int64_t all = wide(columns), groups = parts_of(columns, kPackColumns), blocks = parts_of(k_, kBlockK);
    float* packed = compute_.shared(all * steps(k_));
    const auto at = [&](int64_t block) { return packed + block * steps(kBlockK) * all; };
    compute_.with_scratch(groups * blocks, 0, [&](int64_t index, float*) {
      const int64_t block = index / groups, j = index % groups * kPackColumns;
      const int64_t p0 = block * kBlockK, depth = std::min(kBlockK, k_ - p0);
      products_.pack_right(turned(from(b_, p0, first + j)), std::min(kPackColumns, columns - j), depth,
                           at(block) + j * steps(depth));
    });
    const int64_t across = parts_of(columns, kBlockN), down = cut(m_, kBlockM, products_.tile_rows, across);
    const int64_t most = (parts_of(m_, products_.tile_rows) + down - 1) / down * products_.tile_rows;
    const int64_t left = left_floats(most);
    compute_.with_scratch(down * across, left + edge(), [&](int64_t index, float* scratch) {
      const auto [i0, rows] = part(index / across, down, m_, products_.tile_rows);
      const auto [j0, wide_part] = part(index % across, across, columns, products_.tile_columns);
      for (int64_t p0 = 0; p0 < k_; p0 += kBlockK) {
        const int64_t depth = std::min(kBlockK, k_ - p0);
        multiply_block({i0, rows, first + j0, wide_part}, p0, depth, scratch, at(p0 / kBlockK) + j0 * steps(depth),
                       scratch + left);
      }
    });
  }

  /// One block of k of an output block: `right` is packed, `left` is room for the left operand.
  void multiply_block(const Block& block, int64_t p0, int64_t depth, float* left, const float* right,
                      float* edge) const {
    const int64_t tile_rows = products_.tile_rows, tile_columns = products_.tile_columns, count = steps(depth);
    products_.pack_left(from(a_, block.i0, p0), block.rows, depth, left);
    const float* onto = p0 > 0 ? c_ : onto_;
    for (int64_t j = 0; j < block.columns; j += tile_columns) {
      for (int64_t i = 0; i < block.rows; i += tile_rows) {
        const int64_t at = (block.i0 + i) * stride_ + block.j0 + j;
        const float *x = left + i * count, *y = right + j * count, *base = onto ? onto + at : nullptr;
        const int64_t height = std::min(tile_rows, block.rows - i), width = std::min(tile_columns, block.columns - j);
        if (height == tile_rows && width == tile_columns) {
          products_.tile(count, x, y, base, c_ + at, stride_);
          continue;
        }
        products_.tile(count, x, y, nullptr, edge, tile_columns);
        for (int64_t r = 0; r < height; r++)
          for (int64_t s = 0; s < width; s++)
            c_[at + r * stride_ + s] =
                base ? base[r * stride_ + s] + edge[r * tile_columns + s] : edge[r * tile_columns + s];
      }
    }
  }

  Compute& compute_;
  const Products& products_;
  const int64_t m_, n_, k_;
  const View &a_, &b_;
  float* const c_;
  const int64_t stride_;
  const float* const onto_;
};

}  // namespace

Compute::Compute(int threads, const std::string& isa, Format format)
    : pool_(threads > 0 ? threads : usable_cores()),
      kernels_(&kernels_for(cpu::choose_isa(isa))),
      format_(format),
      scratch_(static_cast<size_t>(pool_.threads())) {}

void multiply(Compute& compute, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t stride,
              const float* onto) {
  if (k > 0 && m > 0 && n > 0) return Product(compute, m, n, k, a, b, c, stride, onto).run();
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) c[i * stride + j] = onto ? onto[i * stride + j] : 0.0f;
}

}  // namespace sdar::train
