// Rows of the embedding table.
#pragma once
#include <cstdint>

#include "backend/cuda/stream.h"

namespace sdar::cuda {

/// x [rows, hidden] f32 = table[ids] bf16, table [vocabulary, hidden] row-major; hidden % 8 == 0, pointers 16-byte
/// aligned; ids on the device, each in [0, vocabulary).
struct EmbedArgs {
  const uint16_t* table = nullptr;
  const int32_t* ids = nullptr;
  float* x = nullptr;
  int rows = 0;
  int hidden = 0;
};
void embed(Stream stream, const EmbedArgs& args);

}  // namespace sdar::cuda
