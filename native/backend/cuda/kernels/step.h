// A step's rows as the device sees them. The host writes these tables into pinned memory and copies them at the start
// of the step, so that a replayed graph finds new data behind the same pointers.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/step.h"
#include "util/host_device.h"

namespace sdar::cuda {

/// Segment with its pages as an index into StepTables::page_ids.
struct DeviceSegment {
  int32_t row = 0;
  int32_t rows = 0;
  int32_t position = 0;
  int32_t block_length = 1;
  int32_t pages = 0;  ///< index of the id of its first page
};

/// The keys that a position sees are those before it.
SDAR_HOST_DEVICE constexpr int32_t visible_end(int32_t position, int32_t block_length) {
  return (position / block_length + 1) * block_length;
}

struct StepTables {
  const DeviceSegment* segments = nullptr;
  const int32_t* row_segment = nullptr;  ///< [rows] index of the row's segment; −1: padding, whose results mean nothing
  const int32_t* page_ids = nullptr;
};

/// Keys and values on the device: bf16 [pages][layers][keys, values][kv heads][64 slots][head_dim].
struct DevicePages {
  uint16_t* data = nullptr;
  int32_t layers = 0, kv_heads = 0, head_dim = 0;

  /// First element of the 64 slots.
  SDAR_HOST_DEVICE int64_t slots(int32_t page, int32_t layer, bool value, int32_t kv_head) const {
    return (((int64_t{page} * layers + layer) * 2 + value) * kv_heads + kv_head) * kPageSlots * head_dim;
  }
};

}  // namespace sdar::cuda
