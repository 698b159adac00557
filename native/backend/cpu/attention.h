// Paged block attention on the CPU: owns the KV pages, and splits a step's work over the threads. Contract:
// backend/attention.h and backend/segment.h.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attention_pages.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/pool.h"
#include "backend/ops.h"

namespace sdar::cpu {

/// A unit is a few consecutive queries of a segment; with all heads of a KV group they are the rows that pass over the
/// pages together. A chunk is 8 pages at a fixed absolute position: the softmax of a row runs within a chunk, and
/// chunks are merged in ascending order, so that the chunks of a long unit may be computed by different threads.
class Attention {
 public:
  /// `pool` outlives this object.
  Attention(Pool& pool, const AttentionKernels& kernels) : pool_(pool), kernels_(kernels) {}

  /// Bytes of one page over all layers, keys and values.
  static size_t page_bytes(const ModelShape& shape, KvFormat format) { return KvPages::page_bytes(shape, format); }
  /// Once. Pages take memory when they are first written. Throws Error(OUT_OF_MEMORY).
  void configure(const ModelShape& shape, const CacheShape& cache, int32_t max_rows);
  /// The segments cover at most max_rows rows; no allocation from here on.
  void begin_step(std::span<const Segment> segments, int32_t rows);
  /// The norms are f32 [head_dim] (args.q_norm and args.k_norm as the backend holds them).
  void run(const AttentionArgs& args, const float* q_norm, const float* k_norm);

  const KvPages& pages() const { return pages_; }

 private:
  /// Softmax of rows in progress, as in PagePass; the arrays lie one after the other.
  struct State {
    float *max, *sum, *acc;
  };
  struct Worker {
    State whole, chunk;
    float *scores, *correction, *weights;
    float* head;     ///< [dim]
    std::byte* own;  ///< a slab, for the key and value of a row that are in no page
  };
  struct Row {
    int32_t row, position, page, slot;  ///< slot -1: its key and value go to no page
  };
  struct Unit {
    int32_t segment;
    int32_t begin, end;  ///< queries of the segment
    int32_t pages;       ///< that its last query sees
    int32_t split = -1;  ///< index of its first counter when chunks are tasks of their own
    int64_t state = 0;   ///< offset of its first chunk's state, in floats
  };
  /// One chunk of a unit, or all (chunk -1), for every KV head.
  struct Task {
    int32_t unit, chunk;
    int64_t cost;
  };

  void place_rows();
  void plan(int32_t threads);
  void prepare(const AttentionArgs& args, const float* q_norm, const float* k_norm, int32_t kv_head, const Row& row,
               Worker& worker);
  void norm_and_rotate(const float* x, const float* norm, int32_t row, float scale, float* out) const;
  void store_query(int32_t kv_head, int32_t row, int32_t head_in_group, const float* x);
  void attend(const AttentionArgs& args, const Task& task, int32_t kv_head, Worker& worker);
  void pass_own(const Unit& unit, int32_t q, const AttentionArgs& args, int32_t kv_head, PagePass& pass,
                Worker& worker) const;
  void run_chunk(const Unit& unit, const AttentionArgs& args, int32_t kv_head, int32_t chunk, const State& state,
                 Worker& worker);
  void merge(const Unit& unit, int32_t chunk, const State& into, const State& from) const;
  void finish(const Unit& unit, int32_t kv_head, const State& state, float* out) const;

  int32_t rows_of(const Unit& unit) const { return (unit.end - unit.begin) * group_; }
  State state_at(float* memory, int32_t rows) const;
  size_t state_floats(int32_t rows) const;
  State chunk_state(const Unit& unit, int32_t kv_head, int32_t chunk) const;

  Pool& pool_;
  const AttentionKernels& kernels_;
  PageKernel kernel_;
  ModelShape shape_;
  KvPages pages_;
  int32_t group_ = 1, unit_queries_ = 1, max_rows_ = 0;

  std::vector<float> inverse_frequency_;  ///< [head_dim / 2]
  LazyMemory scratch_;                    ///< everything below that is a pointer
  std::vector<Worker> workers_;
  float *cos_ = nullptr, *sin_ = nullptr;  ///< [max_rows, head_dim / 2]
  std::byte* queries_ = nullptr;           ///< [kv_heads, max_rows, group, dim] f32 or bf16
  float* states_ = nullptr;                ///< of the chunks of split units
  int64_t state_capacity_ = 0;
  int32_t split_capacity_ = 0;
  std::unique_ptr<std::atomic<int32_t>[]> finished_;  ///< [split units, kv_heads]: chunks done, 0 between runs

  std::vector<Segment> segments_;
  std::vector<Row> rows_;
  std::vector<Unit> units_;
  std::vector<Task> tasks_;
  bool split_ = false;  ///< some unit is
  std::atomic<int64_t> next_{0};
};

}  // namespace sdar::cpu
