#include "bench/cost.h"

#include <algorithm>
#include <vector>

namespace sdar::cuda {
namespace {

/// Bytes when every lane of a warp loads `bytes` of its own tables' entry.
constexpr int64_t per_warp(int64_t bytes) { return 32 * bytes; }

/// The loop over k that all GEMMs share: blocks of row_tiles · 16 weight rows and token_tiles · 8 tokens.
struct Blocks {
  int64_t x, y;  ///< along tokens and weight rows
  int32_t row_tiles, token_tiles;

  Blocks(const DeviceMatrix& weight, int32_t tokens, int32_t rows_of_block, int32_t tokens_of_block)
      : x(ceil_div(tokens, tokens_of_block * kTileTokens)),
        y(ceil_div(weight.row_tiles(), rows_of_block)),
        row_tiles(rows_of_block),
        token_tiles(tokens_of_block) {}
};
int64_t weight_bytes(const DeviceMatrix& w) {
  return int64_t{w.row_tiles()} * w.k_tiles() * weight_tile_bytes(w.format);
}

Cost loop_cost(const DeviceMatrix& w, int32_t tokens, const Blocks& blocks) {
  const int64_t activations = int64_t{tokens} * padded_k(w.cols) * 2;
  Cost c;
  c.loaded = weight_bytes(w) * blocks.x + activations * blocks.y;
  c.loaded_once = weight_bytes(w) + activations;
  c.mma = blocks.x * blocks.token_tiles * blocks.y * blocks.row_tiles * (padded_k(w.cols) / 16);
  return c;
}
/// bf16 of the columns of whole blocks.
int64_t silu_bytes(int32_t tokens, const Blocks& blocks) { return tokens * blocks.y * blocks.row_tiles * 8 * 2; }

}  // namespace

Cost embed_cost(const EmbedParams& a, int32_t distinct) {
  const bool scaled = a.table.format == WeightFormat::int8;
  const int64_t hidden = a.table.cols, threads = int64_t{ceil_div(a.table.cols, kSliceK)} * 4;
  const int64_t vectors = scaled ? threads : hidden / 8, scales = scaled ? hidden / group_k(a.table.format) * 4 : 0;
  Cost c;
  c.loaded = a.rows * (threads * 4 + vectors * (16 + (scaled ? 4 : 0)));
  c.loaded_once = a.rows * 4 + distinct * (vectors * 16 + scales);
  c.stored = a.rows * hidden * 4;
  return c;
}

Cost rms_norm_cost(const NormParams& a, int32_t distinct) {
  const int64_t hidden = a.hidden;
  Cost c;
  c.loaded = a.tokens * hidden * (4 + 4 + 4) + (a.rows ? a.tokens * 8 * per_warp(4) : 0);
  c.loaded_once = (distinct + 1) * hidden * 4 + (a.rows ? a.tokens * 4 : 0);
  c.stored = a.tokens * hidden * 2;
  return c;
}

Cost gemm_cost(const GemmParams& a) {
  const int32_t token_tiles = gemm_token_tiles(a.tokens);
  const Blocks blocks(a.weight, a.tokens, gemm_row_tiles(token_tiles), token_tiles);
  const int64_t out = int64_t{a.tokens} * a.weight.rows * 4;
  const int64_t partials = static_cast<int64_t>(gemm_partial_floats(a.weight, a.tokens)) * 4;
  Cost c = loop_cost(a.weight, a.tokens, blocks);
  c.stored = (a.epilogue == Epilogue::silu_mul ? silu_bytes(a.tokens, blocks) : out) + partials;
  const int64_t again = partials + (a.epilogue == Epilogue::add ? out : 0);
  c.loaded += again;
  c.loaded_once += again;
  return c;
}

Cost gemm_large_cost(const GemmParams& a) {
  const Blocks blocks(a.weight, a.tokens, 8, 16);
  const int64_t out = int64_t{a.tokens} * a.weight.rows * 4, splits = a.weight.splits();
  Cost c = loop_cost(a.weight, a.tokens, blocks);
  c.stored = a.epilogue == Epilogue::silu_mul ? silu_bytes(a.tokens, blocks) : out * splits;
  const int64_t times = a.epilogue == Epilogue::silu_mul ? 0 : splits - (a.epilogue == Epilogue::add ? 0 : 1);
  c.loaded += out * times;
  c.loaded_once += times > 0 ? out : 0;
  return c;
}

Cost gemm_warpgroup_cost(const GemmParams& a) {
  const Blocks blocks(a.weight, a.tokens, 8, a.token_tiles);
  const int64_t out = int64_t{a.tokens} * a.weight.rows * 4;
  Cost c = loop_cost(a.weight, a.tokens, blocks);
  c.stored = a.epilogue == Epilogue::silu_mul ? silu_bytes(a.tokens, blocks) : out;
  c.loaded += a.epilogue == Epilogue::add ? out : 0;
  c.loaded_once += a.epilogue == Epilogue::add ? out : 0;
  return c;
}

namespace {

/// Of the launch with blocks of token_tiles · 8 rows, of which an expert has at most `tokens`.
Cost grouped_cost(const GroupedGemmParams& a, std::span<const int32_t> counts, int32_t token_tiles, int32_t tokens) {
  const Blocks launched(a.shape, tokens, gemm_row_tiles(token_tiles), token_tiles);
  Cost c;
  c.loaded = launched.x * launched.y * a.expert_count * 4 * per_warp(4);  // its number of rows, by every block
  c.loaded_once = a.expert_count * 4;
  for (const int32_t count : counts) {
    if (count == 0 || (a.wide && (count > kTileTokens) != (token_tiles > 1))) continue;
    const Blocks blocks(a.shape, count, gemm_row_tiles(token_tiles), token_tiles);
    const Cost loop = loop_cost(a.shape, count, blocks);
    c.loaded += loop.loaded + blocks.x * blocks.y * 4 * per_warp(12);
    c.loaded_once += loop.loaded_once + 12;
    c.mma += loop.mma;
    c.stored += a.epilogue == Epilogue::silu_mul ? silu_bytes(count, blocks) : int64_t{count} * a.shape.rows * 4;
  }
  return c;
}

}  // namespace

Cost gemm_grouped_cost(const GroupedGemmParams& a, std::span<const int32_t> counts) {
  return grouped_cost(a, counts, 1, a.wide ? 1 : a.tokens);
}

Cost gemm_grouped_wide_cost(const GroupedGemmParams& a, std::span<const int32_t> counts) {
  return grouped_cost(a, counts, 8, a.tokens);
}

Cost add_bias_cost(const AddBiasParams& a) {
  const int64_t elements = int64_t{a.rows} * a.hidden;
  return {.loaded = elements * (4 + 4), .loaded_once = elements * 4 + a.hidden * 4, .stored = elements * 4};
}

Cost rope_cost(const RopeParams& a, int32_t padding, int32_t positions) {
  const int64_t dim = a.pages.head_dim, kv = a.pages.kv_heads, all = a.heads + 2 * kv, rows = a.rows - padding;
  Cost c;
  c.loaded = rows * all * dim * 4 + rows * (a.heads + kv) * dim * (4 + 4);       // values; rotations, norm weights
  c.loaded += per_warp(a.rows * all * 4 + rows * all * 8 + rows * 2 * kv * 12);  // tables
  c.loaded_once = rows * all * dim * 4 + positions * dim * 4 + 2 * dim * 4 + a.rows * 4;
  c.stored = rows * all * dim * 2;
  if (a.q_bias) c.loaded += rows * all * dim * 4, c.loaded_once += all * dim * 4;
  return c;
}

Cost attention_cost(const AttentionShape& shape, std::span<const DeviceSegment> segments,
                    std::span<const AttentionItem> items, int32_t warps) {
  const int32_t group = shape.heads / shape.kv_heads;
  const int64_t vector = int64_t{shape.head_dim} * 2;
  std::vector<int64_t> slots_once(segments.size());
  Cost c;
  for (const AttentionItem& item : items) {
    c.loaded += warps * per_warp(4);
    if (item.segment < 0) continue;
    const DeviceSegment& s = segments[static_cast<size_t>(item.segment)];
    const int32_t per_page = tokens_per_page(s.block_length), end = s.position + s.rows;
    const int32_t queries = std::min(s.rows * group - item.first, warps * kFragmentRows);
    const int32_t seen = visible_end(s.position + (item.first + queries - 1) / group, s.block_length);
    const int32_t page_begin = item.chunk * kChunkPages;
    const int32_t page_end = std::min(item.chunk_end * kChunkPages, ceil_div(seen, per_page));
    const int64_t pages = page_end - page_begin, slots = std::min(page_end * per_page, end) - page_begin * per_page;
    c.loaded += slots * 2 * vector + queries * vector + warps * per_warp(9 * 4 + pages * 4);  // last: tables
    c.loaded_once += item.chunk == 0 ? queries * vector : 0;  // the other chunks read the same queries
    int64_t& once = slots_once[static_cast<size_t>(item.segment)];
    once = std::max<int64_t>(once, std::min(page_end * per_page, end));
    c.mma += warps * pages * shape.head_dim;
    c.stored += item.partial < 0 ? queries * vector : attention_partial_floats(shape.head_dim) * 4;
  }
  for (const int64_t slots : slots_once) c.loaded_once += slots * 2 * vector;
  for (int64_t* n : {&c.loaded, &c.loaded_once, &c.stored, &c.mma}) *n *= shape.kv_heads;
  return c;
}

Cost attention_merge_cost(const AttentionShape& shape, std::span<const DeviceSegment> segments,
                          std::span<const MergeItem> items) {
  const int32_t group = shape.heads / shape.kv_heads;
  Cost c;
  for (const MergeItem& item : items) {
    c.loaded += kFragmentRows * per_warp(4);
    if (item.segment < 0) continue;
    const DeviceSegment& s = segments[static_cast<size_t>(item.segment)];
    const int32_t queries = std::min(s.rows * group - item.first, kFragmentRows);
    c.loaded += kFragmentRows * per_warp(2 * 4) + queries * per_warp(3 * 4);  // tables
    for (int32_t i = 0; i < queries; i++) {
      const int32_t seen = visible_end(s.position + (item.first + i) / group, s.block_length);
      const int64_t finite = ceil_div(seen, kChunkPages * tokens_per_page(s.block_length));
      c.loaded += item.chunks * per_warp(8) + finite * shape.head_dim * 4;
      c.loaded_once += item.chunks * 8 + finite * shape.head_dim * 4;
    }
    c.stored += queries * shape.head_dim * 2;
  }
  for (int64_t* n : {&c.loaded, &c.loaded_once, &c.stored}) *n *= shape.kv_heads;
  return c;
}

Cost lm_head_cost(const DeviceMatrix& weight, int32_t max_count, int32_t count, int32_t logits) {
  const int32_t token_tiles = max_count <= 8 ? 1 : max_count <= 32 ? 4 : 8;
  const Blocks launched(weight, max_count, gemm_row_tiles(token_tiles), token_tiles);
  const Blocks blocks(weight, count, launched.row_tiles, token_tiles);
  const int64_t tiles = int64_t{count} * lm_head_tiles(weight.rows);
  Cost c = loop_cost(weight, count, blocks);
  c.loaded += launched.x * launched.y * 4 * per_warp(4) + tiles * 8 * 28;  // the count; 8 lanes read the sampled row
  c.loaded_once += 4 + count * 28;
  c.stored = tiles * (16 + 4) + int64_t{logits} * weight.rows * 4;
  return c;
}

Cost lm_head_merge_cost(int32_t vocabulary, int32_t max_count, int32_t count) {
  const int64_t tiles = lm_head_tiles(vocabulary);
  return {.loaded = max_count * 8 * per_warp(4) + count * tiles * (16 + 4 + 16),
          .loaded_once = 4 + count * tiles * (16 + 4),
          .stored = count * int64_t{sizeof(DeviceSampledToken)}};
}

Cost sample_cost(int32_t vocabulary, int32_t max_count, int32_t count) {
  // A pass over the logits; then the part of the warp that holds the token, and the token's 256 ids.
  const int64_t logits = int64_t{vocabulary} * 4, warps = 24;
  Cost c;
  c.loaded = max_count * warps * per_warp(4) + count * warps * per_warp(14 * 4);
  c.loaded += count * (logits + (vocabulary > warps * 256 ? logits / warps : 0) + 256 * 4);
  c.loaded_once = count * logits;
  c.stored = count * 4 * 4;
  return c;
}

Cost route_cost(const RouteParams& a) {
  const int64_t row = int64_t{a.hidden} * 4;
  return {.loaded = a.tokens * row * (2 + 1 + a.expert_count),
          .loaded_once = row * (a.tokens + 1 + a.expert_count),
          .stored = int64_t{a.tokens} * a.top_k * 8};
}

Cost group_cost(const GroupParams& a) {
  const int64_t choices = int64_t{a.tokens} * a.top_k;
  return {.loaded = 2 * a.expert_count * choices * 4,
          .loaded_once = choices * 4,
          .stored = (grouped_rows(a.tokens, a.expert_count, a.top_k) + 2 * a.expert_count + 2 * choices) * 4};
}

Cost combine_cost(const CombineParams& a) {
  const int64_t row = int64_t{a.hidden} * 4;
  return {.loaded = a.tokens * (row + a.top_k * (row + row / 16 * 8)),
          .loaded_once = a.tokens * (row + a.top_k * (row + 8)),
          .stored = a.tokens * row};
}

Cost gather_rows_cost(const GatherRowsParams& a, int32_t slots, int32_t masked, int32_t positions, int32_t limited) {
  // A thread per slot reads 12 bytes; then each lane of a slot's warp 4, and 16 where it has a block.
  Cost c;
  c.loaded = a.tables.count * (12 + per_warp(4)) + slots * per_warp(12 + 4) + masked * 100 + limited * 8 +
             (positions - masked) * 4;
  c.loaded_once = a.tables.count * 12 + slots * 100 + limited * 8 + (positions - masked) * 4;
  c.stored = a.tables.count * 4 + positions * 4 + masked * (92 + 4) + (a.max_count - masked) * 4 + 4;
  return c;
}

Cost select_unmask_cost(const DenoiseTables& tables, int32_t slots, int32_t masked, int32_t filled) {
  Cost c;
  c.loaded = tables.count * per_warp(16) + slots * per_warp(4 + 25) + masked * 16;
  c.loaded_once = tables.count * 12 + slots * 29 + masked * 16;
  c.stored = slots * 32 + filled * 4;
  return c;
}

}  // namespace sdar::cuda
