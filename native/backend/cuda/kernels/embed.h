// Rows of the embedding table.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/stream.h"

namespace sdar::cuda {

/// x [rows, hidden] f32 = table[ids], the table packed as a weight (bf16 or int8) [vocabulary, hidden]; hidden % 8 ==
/// 0; ids on the device, each in [0, vocabulary).
struct EmbedParams {
  DeviceMatrix table;
  const int32_t* ids = nullptr;
  float* x = nullptr;
  int32_t rows = 0;
};
void embed(Stream stream, const EmbedParams& args);

}  // namespace sdar::cuda
