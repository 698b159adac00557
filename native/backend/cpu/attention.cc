#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "backend/cpu/packing.h"
#include "backend/rope.h"
#include "util/error.h"
#include "util/half.h"

namespace sdar::cpu {
namespace {

constexpr int32_t kChunkPages = 8;
/// Rows of a unit at most (more only when one query's heads are more).
constexpr int32_t kUnitRows = 64;
/// A unit is split into chunks when one of its heads is more than 1 / (this · threads) of all work.
constexpr int32_t kTasksPerThread = 4;
/// Steps of at most so many rows are split by KV heads when these can be shared out evenly: a thread that prepares what
/// it attends to needs nothing of the others.
constexpr int64_t kHeadRows = 128;
/// A pass over fewer rows than this costs as much: it reads the page all the same.
constexpr int32_t kLeastCost = 8;

template <class T>
constexpr T round_up(T n, T multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int32_t chunks_of(int32_t pages) { return (pages + kChunkPages - 1) / kChunkPages; }

}  // namespace

size_t Attention::state_floats(int32_t rows) const {
  const size_t padded = round_up(rows, 16);
  return padded * (1 + 16 + static_cast<size_t>(pages_.dim()));
}

Attention::State Attention::state_at(float* memory, int32_t rows) const {
  const size_t padded = round_up(rows, 16);
  return {memory, memory + padded, memory + padded * 17};
}

Attention::State Attention::chunk_state(const Unit& unit, int32_t kv_head, int32_t chunk) const {
  const size_t index = static_cast<size_t>(kv_head) * chunks_of(unit.pages) + chunk;
  return state_at(states_ + unit.state + index * state_floats(rows_of(unit)), rows_of(unit));
}

void Attention::configure(const ModelShape& shape, const CacheShape& cache, int32_t max_rows) {
  pages_.configure(shape, cache);
  shape_ = shape;
  kernel_ = kernels_.formats[static_cast<int>(cache.format)];
  max_rows_ = max_rows;
  group_ = shape.heads / shape.kv_heads;
  unit_queries_ = std::max(1, kUnitRows / group_);

  inverse_frequency_ = inverse_frequencies(shape);

  // At most this many units have heads above the share that makes them split; a chunk spans at least 33 · 8 positions
  // (block length 33 leaves the most slots of a page empty).
  const int32_t threads = pool_.size(), unit_rows = unit_queries_ * group_;
  const int64_t positions = std::min<int64_t>(shape.context, cache.pages * kPageSlots);
  const int64_t chunks = positions / (33 * kChunkPages) + 1;
  split_capacity_ = threads > 1 ? kTasksPerThread * threads / shape.kv_heads + 1 : 0;
  state_capacity_ = split_capacity_ * shape.kv_heads * chunks * static_cast<int64_t>(state_floats(unit_rows));

  const size_t dim = pages_.dim(), padded_rows = round_up(unit_rows, 16);
  const size_t table = round_up<size_t>(max_rows * inverse_frequency_.size(), 16);
  const size_t queries = static_cast<size_t>(max_rows) * shape.heads * dim;
  const size_t scores = padded_rows * kPageSlots;
  const size_t own = pages_.slab_bytes() / sizeof(float);
  const size_t worker = 2 * state_floats(unit_rows) + scores + padded_rows + scores / 2 + dim + own;
  if (!scratch_.reserve((2 * table + queries + threads * worker + state_capacity_) * sizeof(float))) {
    throw Error(code::kOutOfMemory, "no memory for the workspaces of attention");
  }
  float* at = reinterpret_cast<float*>(scratch_.data());
  const auto take = [&](size_t floats) { return std::exchange(at, at + floats); };
  cos_ = take(table);
  sin_ = take(table);
  queries_ = reinterpret_cast<std::byte*>(take(queries));
  workers_.clear();
  for (int32_t i = 0; i < threads; i++) {
    const State whole = state_at(take(state_floats(unit_rows)), unit_rows);
    const State chunk = state_at(take(state_floats(unit_rows)), unit_rows);
    workers_.push_back({whole, chunk, take(scores), take(padded_rows), take(scores / 2), take(dim),
                        reinterpret_cast<std::byte*>(take(own))});
  }
  states_ = take(state_capacity_);
  finished_.reset(new std::atomic<int32_t>[static_cast<size_t>(split_capacity_) * shape.kv_heads]());

  segments_.reserve(max_rows);
  rows_.reserve(max_rows);
  units_.reserve(max_rows);
  tasks_.reserve(max_rows + split_capacity_ * chunks);
}

void Attention::begin_step(std::span<const Segment> segments, int32_t rows) {
  segments_.assign(segments.begin(), segments.end());
  if (rows > max_rows_) throw Error(code::kInternal, "a step of more rows than attention was configured for");
  place_rows();
  plan(pool_.threads());
  const size_t half = inverse_frequency_.size();
  const auto factor = static_cast<float>(shape_.rope_scaling.attention_factor);
  pool_.for_each(static_cast<int64_t>(rows_.size()), [&](int64_t i, int) {
    const Row& row = rows_[i];
    for (size_t j = 0; j < half; j++) {
      const Rotation r = rotation(inverse_frequency_[j], row.position, factor);
      cos_[row.row * half + j] = r.cos;
      sin_[row.row * half + j] = r.sin;
    }
  });
}

void Attention::place_rows() {
  rows_.clear();
  for (const Segment& s : segments_) {
    const int32_t per_page = tokens_per_page(s.block_length);
    for (int32_t r = 0; r < s.rows; r++) {
      const int32_t position = s.position_of(r);
      rows_.push_back({s.row + r, position, s.pages[position / per_page], s.in_pages(r) ? position % per_page : -1});
    }
  }
}

/// The list of tasks, the longest first.
void Attention::plan(int32_t threads) {
  units_.clear();
  tasks_.clear();
  int64_t total = 0;
  for (size_t i = 0; i < segments_.size(); i++) {
    const Segment& s = segments_[i];
    for (int32_t begin = 0, end; begin < s.rows; begin = end) {
      end = std::min(begin + unit_queries_, s.in_pages(begin) ? s.tokens() : s.rows);
      const int32_t pages = s.position_of(end - 1) / tokens_per_page(s.block_length) + 1;
      units_.push_back({static_cast<int32_t>(i), begin, end, pages});
      total += static_cast<int64_t>(std::max(rows_of(units_.back()), kLeastCost)) * pages;
    }
  }
  int32_t splits = 0;
  int64_t states = 0;
  for (size_t i = 0; i < units_.size(); i++) {
    Unit& unit = units_[i];
    const int32_t index = static_cast<int32_t>(i), chunks = chunks_of(unit.pages);
    const int64_t page_cost = std::max(rows_of(unit), kLeastCost), cost = page_cost * unit.pages;
    const int64_t need = shape_.kv_heads * chunks * static_cast<int64_t>(state_floats(rows_of(unit)));
    if (chunks == 1 || cost * kTasksPerThread * threads <= total * shape_.kv_heads || splits == split_capacity_ ||
        states + need > state_capacity_) {
      tasks_.push_back({index, -1, cost});
      continue;
    }
    unit.split = splits++ * shape_.kv_heads;
    unit.state = states;
    states += need;
    for (int32_t c = 0; c < chunks; c++) {
      tasks_.push_back({index, c, page_cost * std::min(kChunkPages, unit.pages - c * kChunkPages)});
    }
  }
  split_ = splits > 0;
  std::sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) {
    return a.cost != b.cost ? a.cost > b.cost : a.unit != b.unit ? a.unit < b.unit : a.chunk < b.chunk;
  });
}

void Attention::run(const AttentionArgs& args, const float* q_norm, const float* k_norm) {
  const int64_t rows = static_cast<int64_t>(rows_.size());
  const int32_t threads = pool_.threads();
  if (rows <= kHeadRows && shape_.kv_heads % threads == 0 && !split_) {
    pool_.for_each(shape_.kv_heads, [&](int64_t i, int worker) {
      const int32_t head = static_cast<int32_t>(i);
      for (const Row& row : rows_) prepare(args, q_norm, k_norm, head, row, workers_[worker]);
      for (const Task& task : tasks_) attend(args, task, head, workers_[worker]);
    });
    return;
  }
  pool_.for_each(rows * shape_.kv_heads, [&](int64_t i, int worker) {
    prepare(args, q_norm, k_norm, static_cast<int32_t>(i / rows), rows_[i % rows], workers_[worker]);
  });
  next_.store(0, std::memory_order_relaxed);
  const int64_t count = static_cast<int64_t>(tasks_.size()) * shape_.kv_heads;
  pool_.offer([&](int worker) {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) {
      attend(args, tasks_[i / shape_.kv_heads], static_cast<int32_t>(i % shape_.kv_heads), workers_[worker]);
    }
  });
}

void Attention::norm_and_rotate(const float* x, const float* norm, int32_t row, float scale, float* out) const {
  const size_t half = inverse_frequency_.size();
  kernels_.norm_and_rotate({.x = x,
                            .norm = norm,
                            .cos = cos_ + row * half,
                            .sin = sin_ + row * half,
                            .dim = shape_.head_dim,
                            .eps = shape_.rms_eps,
                            .scale = scale,
                            .out = out});
}

void Attention::store_query(int32_t kv_head, int32_t row, int32_t head_in_group, const float* x) {
  const int32_t dim = pages_.dim(), n = shape_.head_dim;
  const size_t at = ((static_cast<size_t>(kv_head) * max_rows_ + row) * group_ + head_in_group) * dim;
  if (kernel_.bf16_operands) {
    uint16_t* to = reinterpret_cast<uint16_t*>(queries_) + at;
    for (int32_t i = 0; i < n; i++) to[i] = f32_to_bf16(x[i]);
  } else {
    std::memcpy(reinterpret_cast<float*>(queries_) + at, x, n * sizeof(float));
  }  // what is beyond head_dim stays zero
}

/// x[n] += bias[from … from + n), where there is one.
void add_bias(const Weight* bias, int32_t from, int32_t n, float* x) {
  if (!bias) return;
  const float* values = packed(*bias).vector() + from;
  for (int32_t i = 0; i < n; i++) x[i] += values[i];
}

/// One row of one KV group: its queries to queries_, its key and value to the page.
void Attention::prepare(const AttentionArgs& args, const float* q_norm, const float* k_norm, int32_t kv_head,
                        const Row& row, Worker& worker) {
  const int32_t dim = shape_.head_dim;
  float* qkv = args.qkv + static_cast<size_t>(row.row) * (shape_.heads + 2 * shape_.kv_heads) * dim;
  float* key = qkv + (shape_.heads + kv_head) * dim;
  float* value = key + shape_.kv_heads * dim;
  add_bias(args.q_bias, kv_head * group_ * dim, group_ * dim, qkv + kv_head * group_ * dim);
  add_bias(args.k_bias, kv_head * dim, dim, key);
  add_bias(args.v_bias, kv_head * dim, dim, value);
  // The softmax is computed in powers of two.
  const float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(dim)));
  for (int32_t g = 0; g < group_; g++) {
    norm_and_rotate(qkv + (kv_head * group_ + g) * dim, q_norm, row.row, scale, worker.head);
    store_query(kv_head, row.row, g, worker.head);
  }
  norm_and_rotate(key, k_norm, row.row, 1.0f, worker.head);
  if (row.slot < 0) {
    std::memcpy(key, worker.head, dim * sizeof(float));
    return;
  }
  std::byte* slab = pages_.slab(row.page, args.layer, kv_head);
  pages_.write_key(slab, row.slot, worker.head);
  pages_.write_value(slab, row.slot, value);
}

void Attention::attend(const AttentionArgs& args, const Task& task, int32_t kv_head, Worker& worker) {
  const Unit& unit = units_[task.unit];
  const int32_t chunks = chunks_of(unit.pages);
  if (task.chunk < 0) {
    run_chunk(unit, args, kv_head, 0, worker.whole, worker);
    for (int32_t c = 1; c < chunks; c++) {
      run_chunk(unit, args, kv_head, c, worker.chunk, worker);
      merge(unit, c, worker.whole, worker.chunk);
    }
    return finish(unit, kv_head, worker.whole, args.out);
  }
  run_chunk(unit, args, kv_head, task.chunk, chunk_state(unit, kv_head, task.chunk), worker);
  std::atomic<int32_t>& finished = finished_[unit.split + kv_head];
  if (finished.fetch_add(1, std::memory_order_acq_rel) + 1 < chunks) return;
  finished.store(0, std::memory_order_relaxed);  // who comes last merges all
  const State whole = chunk_state(unit, kv_head, 0);
  for (int32_t c = 1; c < chunks; c++) merge(unit, c, whole, chunk_state(unit, kv_head, c));
  finish(unit, kv_head, whole, args.out);
}

/// Of a row that is in no page: its own key and value, as one page more that holds nothing else.
void Attention::pass_own(const Unit& unit, int32_t q, const AttentionArgs& args, int32_t kv_head, PagePass& pass,
                         Worker& worker) const {
  const int32_t dim = shape_.head_dim;
  const size_t row = static_cast<size_t>(segments_[unit.segment].row + q);
  const float* key = args.qkv + (row * (shape_.heads + 2 * shape_.kv_heads) + shape_.heads + kv_head) * dim;
  pages_.write_key(worker.own, 0, key);
  pages_.write_value(worker.own, 0, key + shape_.kv_heads * dim);
  const std::byte* slab = std::exchange(pass.slab, worker.own);
  pass.keys = 1;
  pass.next = nullptr;
  kernel_.pass(pass);
  pass.slab = slab;
}

void Attention::run_chunk(const Unit& unit, const AttentionArgs& args, int32_t kv_head, int32_t chunk,
                          const State& state, Worker& worker) {
  const Segment& s = segments_[unit.segment];
  const int32_t per_page = tokens_per_page(s.block_length), dim = pages_.dim();
  const int32_t first_page = chunk * kChunkPages, last_page = std::min(first_page + kChunkPages, unit.pages) - 1;
  const std::byte* queries =
      queries_ + (static_cast<size_t>(kv_head) * max_rows_ + s.row) * group_ * dim * (kernel_.bf16_operands ? 2 : 4);
  const size_t query_bytes = static_cast<size_t>(group_) * dim * (kernel_.bf16_operands ? 2 : 4);
  PagePass pass;
  pass.dim = dim;
  pass.scores = worker.scores;
  pass.correction = worker.correction;
  pass.weights = worker.weights;
  for (int32_t page = first_page; page <= last_page; page++) {
    pass.slab = pages_.slab(s.pages[page], args.layer, kv_head);
    pass.next = page < last_page ? pages_.slab(s.pages[page + 1], args.layer, kv_head) : nullptr;
    // All queries that see the whole page go together, the others block by block: no key is masked within a pass.
    for (int32_t q = unit.begin; q < unit.end;) {
      const int32_t visible = s.visible_end(q), keys = std::min(visible - page * per_page, per_page);
      const bool in_pages = s.in_pages(q);
      const int32_t alike = in_pages ? std::min(unit.end, visible - s.position) : q + 1;
      const int32_t end = keys == per_page ? unit.end : alike;
      const size_t row = static_cast<size_t>(q - unit.begin) * group_;
      pass.first = page == first_page;
      pass.rows = (end - q) * group_;
      pass.q = queries + q * query_bytes;
      pass.max = state.max + row;
      pass.sum = state.sum + row * 16;
      pass.acc = state.acc + row * dim;
      if (keys > 0) {
        pass.keys = keys;
        kernel_.pass(pass);
        pass.next = nullptr;
        pass.first = false;
      }
      if (!in_pages && s.position_of(q) / per_page == page) pass_own(unit, q, args, kv_head, pass, worker);
      q = end;
    }
  }
}

/// Adds a later chunk's state, for the rows that see any of it.
void Attention::merge(const Unit& unit, int32_t chunk, const State& into, const State& from) const {
  const Segment& s = segments_[unit.segment];
  const int32_t start = chunk * kChunkPages * tokens_per_page(s.block_length), dim = pages_.dim();
  int32_t first = unit.begin;
  while (s.position_of(first) < start) first++;
  for (size_t r = static_cast<size_t>(first - unit.begin) * group_; r < static_cast<size_t>(rows_of(unit)); r++) {
    const float max = std::max(into.max[r], from.max[r]);
    const float a = std::exp2(into.max[r] - max), b = std::exp2(from.max[r] - max);
    into.max[r] = max;
    for (int32_t i = 0; i < 16; i++) into.sum[r * 16 + i] = into.sum[r * 16 + i] * a + from.sum[r * 16 + i] * b;
    float* acc = into.acc + r * dim;
    const float* other = from.acc + r * dim;
    for (int32_t i = 0; i < dim; i++) acc[i] = acc[i] * a + other[i] * b;
  }
}

void Attention::finish(const Unit& unit, int32_t kv_head, const State& state, float* out) const {
  const Segment& s = segments_[unit.segment];
  const int32_t dim = shape_.head_dim;
  for (int32_t r = 0; r < rows_of(unit); r++) {
    const size_t row = static_cast<size_t>(s.row) + unit.begin + r / group_;
    float* to = out + (row * shape_.heads + kv_head * group_ + r % group_) * dim;
    kernels_.divide(state.acc + static_cast<size_t>(r) * pages_.dim(), state.sum + r * 16, dim, to);
  }
}

}  // namespace sdar::cpu
