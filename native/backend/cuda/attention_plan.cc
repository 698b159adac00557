#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {

AttentionPlan plan_attention(std::span<const DeviceSegment> segments, int32_t group, int32_t max_partials) {
  constexpr int32_t kWideRows = 4 * kFragmentRows;
  AttentionPlan plan;
  for (size_t i = 0; i < segments.size(); i++) {
    const DeviceSegment& s = segments[i];
    const int32_t queries = s.rows * group, chunk_positions = kChunkPages * tokens_per_page(s.block_length);
    const bool wide = queries >= kWideRows;
    const int32_t step = wide ? kWideRows : kFragmentRows;
    for (int32_t first = 0; first < queries; first += step) {
      const int32_t last_row = (first + step < queries ? first + step - 1 : queries - 1) / group;
      const int32_t chunks = ceil_div(visible_end(s.position + last_row, s.block_length), chunk_positions);
      AttentionItem item{static_cast<int32_t>(i), first, 0, chunks, -1};
      if (wide) {
        plan.wide.push_back(item);
      } else if (chunks == 1 || plan.partials + chunks > max_partials) {
        plan.narrow.push_back(item);
      } else {
        plan.merges.push_back({item.segment, first, plan.partials, chunks});
        for (item.chunk = 0; item.chunk < chunks; item.chunk++) {
          item.chunk_end = item.chunk + 1;
          item.partial = plan.partials++;
          plan.narrow.push_back(item);
        }
      }
    }
  }
  return plan;
}

}  // namespace sdar::cuda
