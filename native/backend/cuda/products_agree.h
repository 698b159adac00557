// Whether a card's products of warpgroups can stand in for gemm's.
#pragma once
#include "backend/cuda/device.h"

namespace sdar::cuda {

/// Runs gemm and gemm_warpgroup on the same products, of all formats, epilogues and tiles. True when every bit of the
/// results agrees: only then may the number of tokens decide which of the two computes. False also when the library has
/// no code for this card's warpgroups or the card refuses it. Throws Error: OUT_OF_MEMORY, DEVICE_FAILED.
bool products_agree(Device& device);

}  // namespace sdar::cuda
