#include "backend/cuda/workspace.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace sdar::cuda {
namespace {

/// The GEMMs that may be split-K, whatever the format: most partial sums and tile counters.
std::pair<size_t, size_t> split_sizes(const ModelShape& s) {
  const std::pair<int32_t, int32_t> gemms[] = {{(s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden},
                                               {s.hidden, s.heads * s.head_dim},
                                               {s.hidden, s.intermediate}};
  size_t floats = 0, counters = 0;
  for (const auto& [rows, cols] : gemms) {
    if (rows == 0 || cols == 0) continue;
    const DeviceMatrix matrix{.kind = WeightKind::linear, .rows = rows, .cols = cols};
    for (const int32_t tokens : {8, 16, 32, kMaxSplitTokens}) {
      floats = std::max(floats, gemm_partial_floats(matrix, tokens));
      counters = std::max(counters, gemm_counters(matrix, tokens));
    }
  }
  return {floats, counters};
}

/// Calls take(pointer, count, name) for every array.
template <class Take>
void each_array(Workspace& w, const ModelShape& s, int32_t rows, Take take) {
  const auto count = [](auto... factors) { return (static_cast<size_t>(factors) * ...); };
  const auto [split_floats, counters] = split_sizes(s);
  take(w.tiles, static_cast<size_t>(activation_elements(rows, s.hidden)), "normalised rows");
  take(w.q, count(rows, s.heads, s.head_dim), "queries");
  take(w.attention, count(kMaxPartials, s.kv_heads, attention_partial_floats(s.head_dim)), "attention partials");
  take(w.gemm_partials, split_floats, "GEMM partial sums");
  take(w.gemm_counters, counters, "GEMM tile counters");
  take(w.rotations, count(s.context, s.head_dim), "rotations");
  take(w.head_numbers, count(kLmHeadChunk, lm_head_tiles(s.vocabulary), 4), "head partials");
  take(w.head_ids, count(kLmHeadChunk, lm_head_tiles(s.vocabulary)), "head ids");
  if (s.experts == 0) return;
  const int32_t grouped = grouped_rows(rows, s.experts, s.experts_per_token);
  take(w.experts, count(rows, s.experts_per_token), "experts");
  take(w.expert_weights, count(rows, s.experts_per_token), "expert weights");
  take(w.grouped.begin, count(s.experts), "expert begins");
  take(w.grouped.count, count(s.experts), "expert counts");
  take(w.grouped.tokens, count(grouped), "grouped tokens");
  take(w.grouped.rows, count(rows, s.experts_per_token), "rows of choices");
  take(w.grouped_tiles, static_cast<size_t>(activation_elements(grouped, s.hidden)), "grouped rows");
  take(w.inner_tiles, static_cast<size_t>(activation_elements(grouped, s.moe_intermediate)), "expert activations");
  take(w.grouped_out, count(grouped, s.hidden), "expert results");
  take(w.expert_data, count(s.layers, 2, s.experts), "expert pointers");
}

std::vector<float> turning_pairs(const ModelShape& s) {
  const std::vector<float> frequencies = inverse_frequencies(s);
  const auto factor = static_cast<float>(s.rope_scaling.attention_factor);
  std::vector<float> pairs;
  pairs.reserve(static_cast<size_t>(s.context) * s.head_dim);
  for (int32_t position = 0; position < s.context; position++) {
    for (const float frequency : frequencies) {
      const Rotation turn = rotation(frequency, position, factor);
      pairs.push_back(turn.cos);
      pairs.push_back(turn.sin);
    }
  }
  return pairs;
}

}  // namespace

StepBuffers make_step_buffers(Arena& arena, Device& device, const ModelShape& s, int32_t rows) {
  const auto take = [&](int32_t columns) {
    const size_t floats = static_cast<size_t>(rows) * columns;
    auto* memory = arena.take<float>(floats, "activations");
    device.fill(memory, 0, floats * sizeof(float));
    return memory;
  };
  return {.x = take(s.hidden),
          .qkv = take((s.heads + 2 * s.kv_heads) * s.head_dim),
          .attended = take(s.heads * s.head_dim),
          .mlp = take(s.intermediate)};
}

size_t step_buffer_bytes(const ModelShape& s, int32_t rows) {
  const size_t columns = static_cast<size_t>(s.hidden) + (2 * s.heads + 2 * s.kv_heads) * s.head_dim + s.intermediate;
  return columns * static_cast<size_t>(rows) * sizeof(float) + 4 * Arena::kAlignment;
}

size_t Workspace::bytes(const ModelShape& shape, int32_t rows) {
  Workspace none;
  size_t bytes = 0;
  each_array(none, shape, rows, [&]<class T>(T*&, size_t count, const char*) {
    bytes += Arena::padded(std::max<size_t>(count * sizeof(T), 16));
  });
  return bytes;
}

Workspace Workspace::make(Arena& arena, Device& device, const ModelShape& shape, int32_t rows) {
  Workspace w;
  each_array(w, shape, rows, [&]<class T>(T*& array, size_t count, const char* name) {
    array = arena.take<T>(count, name);
    device.fill(const_cast<std::remove_const_t<T>*>(array), 0, count * sizeof(T));
  });
  const std::vector<float> pairs = turning_pairs(shape);
  device.upload_now(w.rotations, pairs.data(), pairs.size() * sizeof(float));
  return w;
}

}  // namespace sdar::cuda
