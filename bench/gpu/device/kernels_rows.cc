// Attention, and the kernels that pass over rows once.
#include <algorithm>
#include <string>

#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/denoise.h"
#include "backend/cuda/kernels/rowwise.h"
#include "backend/cuda/packing.h"
#include "kernel_bench.h"

namespace gpu_bench {

using namespace sdar;

namespace {

constexpr size_t kPageBytes = size_t{2} << 30;  // of keys and values, several layers of them, one after the other
constexpr int kMostLayers = 16;

/// A step of `batch` segments of `rows` positions behind `context` others, in blocks of `block`.
struct Step {
  std::vector<cuda::DeviceSegment> segments;
  std::vector<int32_t> row_segment, page_ids;
  int layers;
  std::unique_ptr<DeviceArray<cuda::DeviceSegment>> device_segments;
  std::unique_ptr<DeviceArray<int32_t>> device_rows, device_pages;
  std::unique_ptr<DeviceArray<uint16_t>> keys;
  cuda::DevicePages pages;

  Step(const ModelShape& s, int batch, int rows, int context, int block) {
    const int per_sequence = cuda::ceil_div(context + rows, tokens_per_page(block));
    for (int i = 0; i < batch; i++) {
      segments.push_back({i * rows, rows, context, block, i * per_sequence});
      row_segment.insert(row_segment.end(), static_cast<size_t>(rows), i);
      // Pages of a sequence lie apart, as they do after a while.
      for (int p = 0; p < per_sequence; p++) page_ids.push_back(p * batch + i);
    }
    const size_t layer = page_ids.size() * 2 * s.kv_heads * kPageSlots * s.head_dim;
    layers = static_cast<int>(std::clamp<size_t>(kPageBytes / (2 * layer), 1, kMostLayers));
    keys = std::make_unique<DeviceArray<uint16_t>>(layer * layers);
    fill_bf16(nullptr, keys->get(), static_cast<int64_t>(keys->size()), 7);
    pages = {keys->get(), layers, s.kv_heads, s.head_dim};
    device_segments = std::make_unique<DeviceArray<cuda::DeviceSegment>>(segments);
    device_rows = std::make_unique<DeviceArray<int32_t>>(row_segment);
    device_pages = std::make_unique<DeviceArray<int32_t>>(page_ids);
  }
  cuda::StepTables tables() const { return {device_segments->get(), device_rows->get(), device_pages->get()}; }
  int rows() const { return static_cast<int>(row_segment.size()); }
};

void measure_step(KernelBench& bench, const NamedShape& model, int batch, int rows, int context, int block) {
  const ModelShape& s = model.shape;
  const Step step(s, batch, rows, context, block);
  const cuda::AttentionPlan plan = cuda::plan_attention(step.segments, s.heads / s.kv_heads);
  const int columns = s.heads * s.head_dim;
  const DeviceArray<uint16_t> q(static_cast<size_t>(step.rows()) * columns);
  fill_bf16(nullptr, q.get(), static_cast<int64_t>(q.size()), 8);
  const auto tiles = random_tiles(step.rows(), columns);
  const DeviceArray<float> partials(static_cast<size_t>(plan.partials) * s.kv_heads *
                                    cuda::attention_partial_floats(s.head_dim));
  const DeviceArray<cuda::AttentionItem> narrow(plan.narrow), wide(plan.wide);
  const DeviceArray<cuda::MergeItem> merges(plan.merges);
  const std::string size = "batch " + std::to_string(batch) + ", " + std::to_string(rows) + " rows behind " +
                           std::to_string(context) + ", block " + std::to_string(block);
  // Keys that rows see: all before their block and their block.
  double seen = 0;
  for (int r = 0; r < rows; r++) seen += cuda::visible_end(context + r, block);
  const double row_bytes = 4.0 * columns * step.rows();
  const Work work{4.0 * batch * s.kv_heads * (context + rows) * s.head_dim + row_bytes, 4.0 * batch * seen * columns};
  cuda::AttentionParams args{step.tables(), step.pages, q.get(), nullptr, 0, tiles->get(), partials.get(), 0, s.heads};
  const auto run = [&](const char* name, const DeviceArray<cuda::AttentionItem>& items,
                       void (*launch)(cuda::Stream, const cuda::AttentionParams&)) {
    args.items = items.get();
    args.item_count = static_cast<int32_t>(items.size());
    if (items.size() == 0) return;
    bench.measure(name, model.name, "bf16", size, work, [&](cuda::Stream stream, int i) {
      args.layer = i % step.layers;
      launch(stream, args);
    });
  };
  run("attention_narrow", narrow, cuda::attention_narrow);
  run("attention_wide", wide, cuda::attention_wide);
  if (merges.size() == 0) return;
  bench.measure("attention_merge", model.name, "f32", size, {static_cast<double>(partials.bytes()) + row_bytes / 2, 0},
                [&](cuda::Stream stream, int) {
                  cuda::attention_merge(stream,
                                        {step.device_segments->get(), merges.get(), static_cast<int32_t>(merges.size()),
                                         partials.get(), tiles->get(), s.heads, s.kv_heads, s.head_dim});
                });
}

}  // namespace

void measure_attention(KernelBench& bench, const NamedShape& model) {
  for (int context : {512, 4096}) {
    for (int batch : {1, 32, 128}) measure_step(bench, model, batch, 4, context, 4);
  }
  for (int block : {8, 16, 32}) measure_step(bench, model, 32, block, 512, block);
  measure_step(bench, model, 1, 2048, 0, 4);  // a prompt
}

void measure_rows(KernelBench& bench, const NamedShape& model) {
  const ModelShape& s = model.shape;
  const int heads = s.heads + 2 * s.kv_heads;
  for (int rows : {64, 512, 2048}) {
    const std::string size = std::to_string(rows) + " rows";
    const auto x = random_floats(static_cast<size_t>(rows) * s.hidden, -1, 1), norm = random_floats(s.hidden, 0.5, 1.5);
    const auto tiles = random_tiles(rows, s.hidden);
    bench.measure("rms_norm", model.name, "f32", size, {6.0 * rows * s.hidden, 0}, [&](cuda::Stream stream, int) {
      cuda::rms_norm(stream, {x->get(), norm->get(), nullptr, tiles->get(), rows, s.hidden, 1e-6f});
    });

    const cuda::DeviceMatrix table{bench.weights(WeightFormat::bf16).get(), WeightKind::table, WeightFormat::bf16,
                                   s.vocabulary, s.hidden};
    bench.copies(cuda::packed_bytes({table.kind, table.format, table.rows, table.cols}));
    std::vector<int32_t> ids;
    for (int i = 0; i < rows; i++) ids.push_back(static_cast<int32_t>(int64_t{i} * 7919 % s.vocabulary));
    const DeviceArray<int32_t> device_ids(ids);
    bench.measure("embed", model.name, "bf16", size, {6.0 * rows * s.hidden, 0}, [&](cuda::Stream stream, int) {
      cuda::embed(stream, {table, device_ids.get(), x->get(), rows});
    });

    const Step step(s, rows / 4, 4, 128, 4);
    const auto qkv = random_floats(static_cast<size_t>(rows) * heads * s.head_dim, -1, 1),
               head_norm = random_floats(s.head_dim, 0.5, 1.5),
               rotations = random_floats(static_cast<size_t>(132) * s.head_dim, -1, 1);
    const DeviceArray<uint16_t> q(static_cast<size_t>(rows) * s.heads * s.head_dim);
    bench.measure("rope", model.name, "f32", size, {6.0 * rows * heads * s.head_dim, 0},
                  [&](cuda::Stream stream, int i) {
                    cuda::rope(stream, {step.tables(), step.pages, qkv->get(), head_norm->get(), head_norm->get(),
                                        rotations->get(), q.get(), rows, i % step.layers, s.heads, 1e-6f});
                  });
  }
  if (model.name != bench.options.shapes[0]) return;  // these know no shape
  for (int block : {4, 32}) {
    constexpr int kSlots = 128;
    std::vector<cuda::DenoiseSlot> slots(kSlots);
    for (int i = 0; i < kSlots; i++) {
      slots[static_cast<size_t>(i)].masked = (uint64_t{1} << block) - 1;
      slots[static_cast<size_t>(i)].row = i * block;
      slots[static_cast<size_t>(i)].block_length = block;
      slots[static_cast<size_t>(i)].params.strategy = Strategy::low_confidence_static;
    }
    const int most = kSlots * block;
    const DeviceArray<cuda::DenoiseSlot> fresh(slots), used(slots);
    const DeviceArray<int32_t> tokens(std::vector<int32_t>(kSlots * 64)), ids(most), rows(most),
        counts(static_cast<size_t>(cuda::ceil_div(most, cuda::kLmHeadChunk)));
    const DeviceArray<cuda::DenoiseOutcome> outcomes(kSlots);
    const DeviceArray<cuda::DeviceSampledRow> sampled(most);
    std::vector<cuda::DeviceSampledToken> found(static_cast<size_t>(most));
    for (int i = 0; i < most; i++)
      found[static_cast<size_t>(i)].confidence = static_cast<float>(i % 97) / 97,
      found[static_cast<size_t>(i)].finite = 1;
    const DeviceArray<cuda::DeviceSampledToken> results(found);
    const cuda::DenoiseTables tables{used.get(), tokens.get(), outcomes.get(), kSlots, 0};
    const std::string size = "128 blocks of " + std::to_string(block);
    const double slot_bytes = static_cast<double>(fresh.bytes());
    bench.measure("gather_rows", "any", "", size, {slot_bytes + 56.0 * most, 0}, [&](cuda::Stream stream, int) {
      cuda::gather_rows(stream, {tables, sampled.get(), rows.get(), counts.get(), most, ids.get()});
    });
    // Slots advance, so they are set back before each launch.
    bench.measure("select_unmask and a copy of its slots", "any", "", size, {4 * slot_bytes + 12.0 * most, 0},
                  [&](cuda::Stream stream, int) {
                    succeed(cudaMemcpyAsync(used.get(), fresh.get(), fresh.bytes(), cudaMemcpyDefault, stream), "copy");
                    cuda::select_unmask(stream, {tables, results.get()});
                  });
  }
}

}  // namespace gpu_bench
