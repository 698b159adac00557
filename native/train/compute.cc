#include "train/compute.h"

#include "backend/cpu/cpu.h"
#include "util/machine.h"

namespace sdar::train {
namespace {

constexpr int64_t kBlockM = 192, kBlockN = 1280;
constexpr int64_t kLongM = 384, kLongN = 640;      ///< where the sum is longer than the output is high
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

/// Brings a part of an operand into the second cache, little by little, while another is multiplied: its rows are too
/// short for the machine to see where they go on.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const View& view, int64_t rows, int64_t depth) {
    const int64_t size = view.data.format == Format::f32 ? 4 : 2;
    if (view.column != 1) std::swap(rows, depth);
    next_ = static_cast<const std::byte*>(view.data.data);
    skip_ = (view.column == 1 ? view.row : view.column) * size;
    lines_ = parts_of(depth * size, kLine);
    left_ = rows * lines_;
  }
  int64_t left() const { return left_; }
  void bring(int64_t lines) {
    for (lines = std::min(lines, left_), left_ -= lines; lines > 0; lines--) {
      __builtin_prefetch(next_ + line_ * kLine, 0, 2);
      if (++line_ < lines_) continue;
      line_ = 0;
      next_ += skip_;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  const std::byte* next_ = nullptr;
  int64_t skip_ = 0, lines_ = 1, line_ = 0, left_ = 0;
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
    // A long sum: workers take large blocks of the output and pack both operands for themselves.
    if (k_ > m_ && k_ > kBlockK) return run_long();
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

  void run_long() {
    const int64_t threads = compute_.threads(), tile_rows = products_.tile_rows, tile_columns = products_.tile_columns;
    const int64_t across = parts_of(n_, kLongN), least = parts_of(m_, kLongM);
    const int64_t down =
        std::clamp<int64_t>(parts_of(round_up(least * across, threads), across), least, parts_of(m_, tile_rows));
    const int64_t left = left_floats(parts_of(parts_of(m_, tile_rows), down) * tile_rows);
    const int64_t right = parts_of(parts_of(n_, tile_columns), across) * tile_columns * block_steps();
    compute_.with_scratch(down * across, left + right + edge(), [&](int64_t index, float* scratch) {
      const auto [i0, rows] = part(index / across, down, m_, tile_rows);
      const auto [j0, columns] = part(index % across, across, n_, tile_columns);
      for (int64_t p0 = 0; p0 < k_; p0 += kBlockK) {
        const int64_t depth = std::min(kBlockK, k_ - p0), p1 = p0 + depth, next = std::min(kBlockK, k_ - p1);
        Ahead of_left, of_right;
        if (next > 0) of_left = Ahead(from(a_, i0, p1), rows, next);
        if (next > 0) of_right = Ahead(turned(from(b_, p1, j0)), columns, next);
        products_.pack_right(turned(from(b_, p0, j0)), columns, depth, scratch + left);
        multiply_block({i0, rows, j0, columns}, p0, depth, scratch, scratch + left, scratch + left + right, of_left,
                       of_right);
      }
    });
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
        multiply_block({0, m_, j0, columns}, p0, depth, scratch, scratch + left, scratch + left + right, {}, {});
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
        const int64_t depth = std::min(kBlockK, k_ - p0), p1 = p0 + depth;
        Ahead ahead;
        if (p1 < k_)
          ahead = Ahead(from(a_, i0, p1), rows, std::min(kBlockK, k_ - p1));
        else if (i0 + rows < m_)
          ahead = Ahead(from(a_, i0 + rows, 0), std::min(rows, m_ - i0 - rows), std::min(kBlockK, k_));
        multiply_block({i0, rows, first + j0, wide_part}, p0, depth, scratch, at(p0 / kBlockK) + j0 * steps(depth),
                       scratch + left, ahead, {});
      }
    });
  }

  /// One block of k of an output block: `right` is packed, `left` is room for the left operand.
  void multiply_block(const Block& block, int64_t p0, int64_t depth, float* left, const float* right, float* edge,
                      Ahead of_left, Ahead of_right) const {
    const int64_t tile_rows = products_.tile_rows, tile_columns = products_.tile_columns, count = steps(depth);
    products_.pack_left(from(a_, block.i0, p0), block.rows, depth, left);
    const float* onto = p0 > 0 ? c_ : onto_;
    const int64_t tiles = parts_of(block.rows, tile_rows) * parts_of(block.columns, tile_columns);
    const int64_t left_lines = parts_of(of_left.left(), tiles), right_lines = parts_of(of_right.left(), tiles);
    for (int64_t j = 0; j < block.columns; j += tile_columns) {
      for (int64_t i = 0; i < block.rows; i += tile_rows) {
        of_left.bring(left_lines);
        of_right.bring(right_lines);
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

ProductScratch product_scratch(const Compute& compute, int64_t m, int64_t n, int64_t k) {
  const Products& products = compute.products();
  const int64_t depth = parts_of(std::min(k, kBlockK), products.step), tile = products.tile_columns;
  if (k > m && k > kBlockK)
    return {0, (std::min(round_up(m, products.tile_rows), kLongM) + std::min(round_up(n, tile), kLongN)) * depth};
  if (m <= kBlockM) return {0, (round_up(m, products.tile_rows) + std::min<int64_t>(round_up(n, tile), 256)) * depth};
  const int64_t steps = parts_of(k, products.step);
  return {std::min(std::max(tile, kMostShared / steps / tile * tile), round_up(n, tile)) * steps, kBlockM * depth};
}

void multiply(Compute& compute, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t stride,
              const float* onto) {
  if (k > 0 && m > 0 && n > 0) return Product(compute, m, n, k, a, b, c, stride, onto).run();
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) c[i * stride + j] = onto ? onto[i * stride + j] : 0.0f;
}

}  // namespace sdar::train
