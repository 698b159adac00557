// What the lanes of a warp compute together.
#pragma once
#include <cstdint>

#include "simt/sites.h"

namespace sdar::cuda_host {

enum class Shuffle : uint8_t { from_lane, exclusive_or, down, up };

uint32_t shuffle(const Site& site, Shuffle how, uint32_t mask, uint32_t value, int operand);
/// The predicates of the mask's lanes, one bit each.
uint32_t ballot(const Site& site, const char* name, uint32_t mask, bool predicate);
/// `matrices` 2 or 4; the lane's 16 bytes at `row` of shared memory are read by it.
void load_matrices(const Site& site, int matrices, bool transposed, int64_t row, uint32_t* registers);
void multiply_bf16(const Site& site, float* d, const uint32_t* a, const uint32_t* b);
void multiply_s8(const Site& site, int32_t* d, const uint32_t* a, const uint32_t* b);

}  // namespace sdar::cuda_host
