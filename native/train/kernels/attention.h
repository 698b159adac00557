// Attention of one KV head's group, forward and backward, as tiles of matrix products. Queries are taken kQueries (row,
// head) pairs at a time, with the keys that any of them sees; probabilities of others are zeros. Every sum has an order
// that the sample alone decides, so nothing depends on how groups are given to threads.
#pragma once
#include <cmath>

#include "train/kernels/kernels.h"
#include "train/kernels/pack.h"
#include "train/kernels/tile.h"
#include "train/kernels/vectors.h"

namespace sdar::train {
namespace {

constexpr int64_t kQueries = 48;
static_assert(kQueries % kTileRows == 0);

constexpr int64_t up_to(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

/// c [rows, columns] = a · b over `steps`, or += where `add`, all in panels; rows and columns in whole tiles.
template <class F>
void product(int64_t rows, int64_t columns, int64_t steps, const float* a, int64_t a_panel, const float* b,
             int64_t b_panel, float* c, int64_t stride, bool add) {
  for (int64_t j = 0; j < columns / kColumns; j++) {
    for (int64_t i = 0; i < rows / kTileRows; i++) {
      float* to = c + i * kTileRows * stride + j * kColumns;
      tile<typename F::Multiply, false>(steps, a + i * a_panel, b + j * b_panel, add ? to : nullptr, to, stride);
    }
  }
}

/// The keys of a group and what is done with them, in `scratch`, with operands of format F. Keys are numbered in the sample.
template <class F>
class GroupTiles {
 public:
  GroupTiles(const HeadGroup& group, float* scratch)
      : g_(group),
        dim_(group.head_dim),
        dim_steps_(steps_of<F>(dim_)),
        wide_(up_to(dim_, kColumns)),
        rows_(group.rows.end - group.rows.begin),
        keys_(up_to(rows_, kColumns)),
        next_(scratch) {}

  float* take(int64_t floats) {
    float* taken = next_;
    next_ += floats;
    return taken;
  }
  int64_t items() const { return rows_ * g_.heads; }
  int64_t wide() const { return wide_; }
  int64_t keys() const { return keys_; }

  /// Of keys or values: as columns of scores, and as rows that are summed.
  float* pack_columns(const Operand& from) {
    float* to = take(keys_ * dim_steps_);
    pack<F, kColumns>({from.at(g_.rows.begin * g_.k_stride), g_.k_stride, 1}, rows_, dim_, to, dim_steps_ * kColumns);
    return to;
  }
  float* pack_rows(const Operand& from) {
    const int64_t panel = keys_ / F::kStep * kColumns, floats = panel * (wide_ / kColumns);
    float* to = take(floats);
    if (keys_ > rows_) std::memset(to, 0, static_cast<size_t>(floats) * sizeof *to);
    pack<F, kColumns>({from.at(g_.rows.begin * g_.k_stride), 1, g_.k_stride}, dim_, rows_, to, panel);
    return to;
  }

  /// Begins with queries `first` …; their number in whole tiles.
  void begin(int64_t first) {
    first_ = first;
    count_ = std::min(kQueries, items() - first);
    padded_ = up_to(count_, kTileRows);
    for (int part = 0; part < 2; part++) {
      int64_t low = rows_, high = 0;
      for (int64_t row = first / g_.heads; row <= (first + count_ - 1) / g_.heads; row++) {
        const Span& span = sight(row).parts[part];
        if (span.begin == span.end) continue;
        low = std::min<int64_t>(low, span.begin - g_.rows.begin);
        high = std::max<int64_t>(high, span.end - g_.rows.begin);
      }
      range_[part] = {low / kColumns * kColumns, low < high ? up_to(high, kColumns) : low / kColumns * kColumns};
    }
    if (range_[0].end < range_[0].begin || range_[0].begin == range_[0].end) std::swap(range_[0], range_[1]);
    // Ranges that meet are one, or the keys in both would be counted twice.
    if (range_[1].begin < range_[1].end && range_[0].begin <= range_[1].end && range_[1].begin <= range_[0].end) {
      range_[0] = {std::min(range_[0].begin, range_[1].begin), std::max(range_[0].end, range_[1].end)};
      range_[1] = {};
    }
  }
  int64_t count() const { return count_; }
  int64_t padded() const { return padded_; }
  int64_t row_of(int64_t i) const { return g_.rows.begin + (first_ + i) / g_.heads; }
  int64_t head_of(int64_t i) const { return (first_ + i) % g_.heads; }
  /// Where item i's query, output and their gradients lie.
  int64_t at(int64_t i) const { return row_of(i) * g_.q_stride + head_of(i) * dim_; }

  /// The items of a tensor like q, dense: to [kQueries, head_dim], zeros after the last.
  Operand gather(const Operand& from, float* to) const {
    const OperandOut items(to, from.format);
    const size_t bytes = static_cast<size_t>(dim_) * (from.format == Format::f32 ? 4 : 2);
    for (int64_t i = 0; i < count_; i++) std::memcpy(items.at(i * dim_).data, from.at(at(i)).data, bytes);
    for (int64_t i = count_; i < kQueries; i++) std::memset(items.at(i * dim_).data, 0, bytes);
    return items;
  }
  /// scores [kQueries, keys] = items [kQueries, head_dim] · columnsᵀ, within the ranges.
  void scores(const Operand& items, const float* columns, float* packed, float* to) const {
    pack<F, kTileRows>({items, dim_, 1}, padded_, dim_, packed, dim_steps_ * kTileRows);
    for (const Range& r : range_)
      product<F>(padded_, r.end - r.begin, dim_steps_, packed, dim_steps_ * kTileRows, columns + r.begin * dim_steps_,
                 dim_steps_ * kColumns, to + r.begin, keys_, false);
  }
  /// visit(x, first key, number) for the keys that item i sees; the others within the ranges become 0.
  template <class Visit>
  void visit_seen(int64_t i, float* scores, Visit&& visit) const {
    float* row = scores + i * keys_;
    Range seen[2];
    int64_t parts = 0;
    for (const Span& span : g_.sight[row_of(i)].parts)
      if (span.begin < span.end) seen[parts++] = {span.begin - g_.rows.begin, span.end - g_.rows.begin};
    if (parts == 2 && seen[1].begin < seen[0].begin) std::swap(seen[0], seen[1]);
    for (const Range& r : range_) {
      int64_t done = r.begin;
      for (int64_t part = 0; part < parts; part++) {
        if (seen[part].begin < r.begin || seen[part].begin >= r.end) continue;
        std::fill(row + done, row + seen[part].begin, 0.0f);
        visit(row + seen[part].begin, seen[part].begin, seen[part].end - seen[part].begin);
        done = seen[part].end;
      }
      std::fill(row + done, row + r.end, 0.0f);
    }
  }
  void clear_padding(float* scores) const {
    for (int64_t i = count_; i < kQueries; i++)
      for (const Range& r : range_) std::fill(scores + i * keys_ + r.begin, scores + i * keys_ + r.end, 0.0f);
  }
  /// to [kQueries, wide] = scores · rows.
  void weigh(const float* scores, const float* rows, float* packed, float* to) const {
    bool add = false;
    for (const Range& r : range_) {
      if (r.begin == r.end) continue;
      const int64_t depth = r.end - r.begin, panel = depth / F::kStep * kTileRows;
      pack<F, kTileRows>({scores + r.begin, keys_, 1}, padded_, depth, packed, panel);
      product<F>(padded_, wide_, depth / F::kStep, packed, panel, rows + r.begin / F::kStep * kColumns,
                 keys_ / F::kStep * kColumns, to, wide_, add);
      add = true;
    }
  }
  /// to [keys + kTileRows, wide] += scoresᵀ · items; what lies past the ranges gets zeros added.
  void weigh_items(const float* scores, const Operand& items, float* packed, float* packed_items, float* to) const {
    constexpr int64_t kSteps = kQueries / F::kStep;
    pack<F, kColumns>({items, 1, dim_}, dim_, kQueries, packed_items, kSteps * kColumns);
    for (const Range& r : range_) {
      pack<F, kTileRows>({scores + r.begin, 1, keys_}, r.end - r.begin, kQueries, packed, kSteps * kTileRows);
      product<F>(up_to(r.end - r.begin, kTileRows), wide_, kSteps, packed, kSteps * kTileRows, packed_items,
                 kSteps * kColumns, to + r.begin * wide_, wide_, true);
    }
  }
  void scatter(const float* from, float* to) const {
    for (int64_t i = 0; i < count_; i++)
      std::memcpy(to + at(i), from + i * wide_, static_cast<size_t>(dim_) * sizeof *to);
  }
  void scatter_keys(const float* from, float* to) const {
    for (int64_t key = 0; key < rows_; key++)
      std::memcpy(to + (g_.rows.begin + key) * g_.k_stride, from + key * wide_, static_cast<size_t>(dim_) * sizeof *to);
  }

 private:
  struct Range {
    int64_t begin = 0, end = 0;
  };
  const Sight& sight(int64_t row) const { return g_.sight[g_.rows.begin + row]; }

  const HeadGroup& g_;
  const int64_t dim_, dim_steps_, wide_, rows_, keys_;
  float* next_;
  int64_t first_ = 0, count_ = 0, padded_ = 0;
  Range range_[2];
};

int64_t attention_scratch(int64_t rows, int64_t head_dim) {
  const int64_t keys = up_to(rows, kColumns) + kTileRows, wide = up_to(head_dim, kColumns);
  return keys * (2 * head_dim + 3 * wide) + 3 * kQueries * keys + kQueries * (3 * head_dim + 2 * wide);
}

template <class F>
void attention(const HeadGroup& g, float* scratch) {
  GroupTiles<F> tiles(g, scratch);
  const float *columns = tiles.pack_columns(g.k), *rows = tiles.pack_rows(g.v);
  float *p = tiles.take(kQueries * tiles.keys()), *packed = tiles.take(kQueries * (tiles.keys() + g.head_dim));
  float *spare = tiles.take(kQueries * g.head_dim), *out = tiles.take(kQueries * tiles.wide());
  for (int64_t first = 0; first < tiles.items(); first += kQueries) {
    tiles.begin(first);
    tiles.scores(tiles.gather(g.q, spare), columns, packed, p);
    float sums[kQueries];
    for (int64_t i = 0; i < tiles.count(); i++) {
      float maximum = -INFINITY, sum = 0;
      tiles.visit_seen(i, p,
                       [&](float* x, int64_t, int64_t n) { maximum = std::max(maximum, g.scale * row_maximum(x, n)); });
      tiles.visit_seen(i, p, [&](float* x, int64_t, int64_t n) { sum += exp_below(x, n, g.scale, maximum); });
      sums[i] = sum;
      g.logsumexp[tiles.row_of(i) * g.lse_stride + tiles.head_of(i)] = maximum + std::log(sum);
    }
    tiles.weigh(p, rows, packed, out);
    for (int64_t i = 0; i < tiles.count(); i++) scale_row(out + i * tiles.wide(), g.head_dim, 1 / sums[i]);
    tiles.scatter(out, g.o);
  }
}

template <class F>
void attention_backward(const HeadGroup& g, const HeadGroupGradients& to, float* scratch) {
  GroupTiles<F> tiles(g, scratch);
  const float *keys = tiles.pack_columns(g.k), *values = tiles.pack_columns(g.v), *rows = tiles.pack_rows(g.k);
  const int64_t sums = (tiles.keys() + kTileRows) * tiles.wide();
  float *dk = tiles.take(sums), *dv = tiles.take(sums);
  std::fill(dk, dk + 2 * sums, 0.0f);
  float *p = tiles.take(kQueries * tiles.keys()), *ds = tiles.take(kQueries * tiles.keys());
  float* packed = tiles.take(kQueries * (tiles.keys() + kTileRows + g.head_dim));
  float *of_q = tiles.take(kQueries * g.head_dim), *of_o = tiles.take(kQueries * g.head_dim);
  float *out = tiles.take(kQueries * tiles.wide()), *packed_items = tiles.take(kQueries * tiles.wide());
  for (int64_t first = 0; first < tiles.items(); first += kQueries) {
    tiles.begin(first);
    const Operand q = tiles.gather(g.q, of_q), d_o = tiles.gather(to.d_o, of_o);
    tiles.scores(q, keys, packed, p);
    tiles.scores(d_o, values, packed, ds);
    for (int64_t i = 0; i < tiles.count(); i++) {
      const float logsumexp = g.logsumexp[tiles.row_of(i) * g.lse_stride + tiles.head_of(i)];
      const float mean = dot(of_o + i * g.head_dim, g.o + tiles.at(i), g.head_dim);  // Σ_j p_j · dp_j
      tiles.visit_seen(i, p, [&](float* x, int64_t, int64_t n) {
        for (int64_t j = 0; j < n; j++) x[j] = exponential(x[j] * g.scale - logsumexp);
      });
      tiles.visit_seen(i, ds, [&](float* x, int64_t key, int64_t n) {
        const float* probability = p + i * tiles.keys() + key;
        for (int64_t j = 0; j < n; j++) x[j] = probability[j] * (x[j] - mean) * g.scale;
      });
    }
    tiles.clear_padding(p);
    tiles.clear_padding(ds);
    tiles.weigh(ds, rows, packed, out);
    tiles.scatter(out, to.dq);
    tiles.weigh_items(p, d_o, packed, packed_items, dv);
    tiles.weigh_items(ds, q, packed, packed_items, dk);
  }
  tiles.scatter_keys(dk, to.dk);
  tiles.scatter_keys(dv, to.dv);
}

template <class F>
constexpr Attention attention_of() {
  return {attention_scratch, attention<F>, attention_backward<F>};
}

}  // namespace
}  // namespace sdar::train
