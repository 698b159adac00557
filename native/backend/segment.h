// A step is a list of segments: runs of consecutive positions of one sequence, of any kind (prefill chunk, denoising
// block, committed block followed by the next one's first step). All kinds are computed alike.
#pragma once
#include <cstdint>

#include "util/host_device.h"

namespace sdar {

/// Tokens that fit into one page for block length B: a block never straddles pages.
constexpr int32_t kPageSlots = 64;
SDAR_HOST_DEVICE constexpr int32_t tokens_per_page(int32_t block_length) {
  return kPageSlots / block_length * block_length;
}

/// Rows [row, row + rows) of the step are the positions [position, position + rows) of one sequence.
/// Both `position` and `position + rows` are multiples of `block_length`.
/// Position p lies in slot p % tokens_per_page of page pages[p / tokens_per_page].
/// The row at position p attends to every position k with k / block_length <= p / block_length. Keys and values before
/// `position` are in the pages, or written there by other segments of the step; all of the step's are written (rounded
/// to the KV format) before any is read.
struct Segment {
  int32_t row = 0;
  int32_t rows = 0;
  int32_t position = 0;
  int32_t block_length = 1;
  const int32_t* pages = nullptr;  ///< page ids, host memory, valid during the step
};

}  // namespace sdar
