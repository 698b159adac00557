// Sequences in pages, and a step's tables, for tests of attention kernels.
#pragma once
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/rowwise.h"
#include "cuda_tensors.h"

namespace oracle {

/// Pages of some sequences on the device, in a random order, with NaN in every slot that nobody wrote.
struct PagedSequences {
  int layers, kv_heads, head_dim, block_length;
  std::vector<std::vector<int32_t>> page_ids;  ///< per sequence
  std::unique_ptr<Buffer<uint16_t>> data;

  PagedSequences(Random& random, const ModelShape& shape, int block, const std::vector<int>& lengths)
      : layers(shape.layers), kv_heads(shape.kv_heads), head_dim(shape.head_dim), block_length(block) {
    std::vector<int32_t> ids;
    for (int length : lengths) {
      page_ids.emplace_back();
      for (int p = 0; p < length; p += tokens_per_page(block)) {
        page_ids.back().push_back(static_cast<int32_t>(ids.size()));
        ids.push_back(static_cast<int32_t>(ids.size()));
      }
    }
    for (size_t i = ids.size(); i > 1; i--)
      std::swap(ids[i - 1], ids[static_cast<size_t>(random.below(static_cast<int>(i)))]);
    for (auto& pages : page_ids) {
      for (int32_t& id : pages) id = ids[static_cast<size_t>(id)];
    }
    const size_t elements = ids.size() * layers * 2 * kv_heads * kPageSlots * head_dim;
    data = std::make_unique<Buffer<uint16_t>>(std::vector<uint16_t>(elements, 0x7fc0), "pages");
  }
  cuda::DevicePages view() const { return {data->get(), layers, kv_heads, head_dim}; }
  /// First element of a position's key or value.
  uint16_t* at(int sequence, int layer, bool value, int kv_head, int position) const {
    const int per_page = tokens_per_page(block_length);
    const int page = page_ids[static_cast<size_t>(sequence)][static_cast<size_t>(position / per_page)];
    return data->get() + view().slots(page, layer, value, kv_head) + position % per_page * head_dim;
  }
  void put(int sequence, int layer, bool value, int kv_head, int position, const std::vector<float>& vector) const {
    std::vector<uint16_t> bits;
    for (float v : vector) bits.push_back(f32_to_bf16(v));
    cuda_host::upload(at(sequence, layer, value, kv_head, position), bits.data(), bits.size() * 2);
  }
  std::vector<float> get(int sequence, int layer, bool value, int kv_head, int position) const {
    std::vector<uint16_t> bits(static_cast<size_t>(head_dim));
    cuda_host::download(bits.data(), at(sequence, layer, value, kv_head, position), bits.size() * 2);
    std::vector<float> vector;
    for (uint16_t h : bits) vector.push_back(bf16_to_f32(h));
    return vector;
  }
};

/// Positions [position, position + rows) of a sequence.
struct Run {
  int sequence, position, rows;
};

/// A step's tables on the device; rows are those of the runs one after the other, then `padding` rows of nobody.
struct DeviceStep {
  std::vector<cuda::DeviceSegment> segments;
  std::vector<int32_t> row_segment, page_ids;
  std::unique_ptr<Buffer<cuda::DeviceSegment>> device_segments;
  std::unique_ptr<Buffer<int32_t>> device_rows, device_pages;

  DeviceStep(const PagedSequences& pages, const std::vector<Run>& runs, int padding = 0) {
    for (const Run& run : runs) {
      const int32_t row = static_cast<int32_t>(row_segment.size());
      row_segment.resize(row_segment.size() + static_cast<size_t>(run.rows), static_cast<int32_t>(segments.size()));
      segments.push_back({row, run.rows, run.position, pages.block_length, static_cast<int32_t>(page_ids.size())});
      const auto& ids = pages.page_ids[static_cast<size_t>(run.sequence)];
      page_ids.insert(page_ids.end(), ids.begin(), ids.end());
    }
    row_segment.resize(row_segment.size() + static_cast<size_t>(padding), -1);
    device_segments = std::make_unique<Buffer<cuda::DeviceSegment>>(segments, "segments");
    device_rows = std::make_unique<Buffer<int32_t>>(row_segment, "row segments");
    device_pages = std::make_unique<Buffer<int32_t>>(page_ids, "page ids");
  }
  int rows() const { return static_cast<int>(row_segment.size()); }
  cuda::StepTables tables() const { return {device_segments->get(), device_rows->get(), device_pages->get()}; }
};

/// [positions, head_dim / 2] pairs cos, sin.
inline std::vector<float> rotations(int positions, int head_dim, double theta) {
  std::vector<float> table;
  for (int p = 0; p < positions; p++) {
    for (int i = 0; i < head_dim / 2; i++) {
      const double angle = p * std::pow(theta, -2.0 * i / head_dim);
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

/// Attention of a step over its queries q [rows, heads · head_dim]; launches what the plan says, and some items of
/// nobody, as a replayed graph has. When counting, costs and accesses are checked as well.
inline Matrix attend(const PagedSequences& pages, const DeviceStep& step, const Matrix& q, int heads, int layer,
                     bool counting = false) {
  const int rows = step.rows(), columns = heads * pages.head_dim;
  cuda::AttentionPlan plan = cuda::plan_attention(step.segments, heads / pages.kv_heads);
  std::vector<uint16_t> bits;
  for (float v : q.data) bits.push_back(f32_to_bf16(v));
  const Buffer<uint16_t> device_q(bits, "q");
  const auto tiles = empty_tiles(rows, columns, "tiles");
  const Buffer<float> partials(
      static_cast<size_t>(plan.partials * pages.kv_heads * cuda::attention_partial_floats(pages.head_dim)) + 1,
      "partials");
  cuda::AttentionParams args{.tables = step.tables(),
                             .pages = pages.view(),
                             .q = device_q.get(),
                             .tiles = tiles->get(),
                             .partials = partials.get(),
                             .layer = layer,
                             .heads = heads};
  const cuda::AttentionShape shape{heads, pages.kv_heads, pages.head_dim};
  cuda::AttentionItem nobody;
  nobody.segment = -1;
  for (auto* items : {&plan.narrow, &plan.wide}) {
    if (items->empty()) continue;
    items->push_back(nobody);
    const Buffer<cuda::AttentionItem> device_items(*items, "items");
    args.items = device_items.get();
    args.item_count = static_cast<int32_t>(items->size());
    const bool narrow = items == &plan.narrow;
    (narrow ? cuda::attention_narrow : cuda::attention_wide)(nullptr, args);
    if (!counting) continue;
    check_cost(cuda::attention_cost(shape, step.segments, *items, narrow ? 1 : 4));
    CHECK(cuda_host::last_launch().tensor("pages").narrow == 0);
    CHECK(cuda_host::last_launch().bank_conflicts() == 0);
    CHECK(claimed("attention.cu", "attention<" + std::to_string(pages.head_dim) + (narrow ? ", 1>" : ", 4>")));
  }
  if (!plan.merges.empty()) {
    cuda::MergeItem none;
    none.segment = -1;
    plan.merges.push_back(none);
    const Buffer<cuda::MergeItem> merges(plan.merges, "merges");
    cuda::attention_merge(nullptr, {.segments = step.device_segments->get(),
                                    .items = merges.get(),
                                    .item_count = static_cast<int32_t>(plan.merges.size()),
                                    .partials = partials.get(),
                                    .tiles = tiles->get(),
                                    .heads = heads,
                                    .kv_heads = pages.kv_heads,
                                    .head_dim = pages.head_dim});
    if (counting) {
      check_cost(cuda::attention_merge_cost(shape, step.segments, plan.merges));
      CHECK(claimed("attention_merge.cu", "attention_merge<" + std::to_string(pages.head_dim) + ">"));
    }
  }
  return get_tiles(*tiles, rows, columns);
}

}  // namespace oracle
