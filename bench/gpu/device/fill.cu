// Numbers for measurements: a hash of the place, a word per thread.
#include "backend/cuda/kernels/device.cuh"
#include "fill.h"

namespace sdar::cuda {

/// Finaliser of MurmurHash3.
SDAR_DEVICE uint32_t hash(uint32_t x) {
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

SDAR_DEVICE int64_t global_thread() { return int64_t{block_index_x()} * block_threads() + thread_index(); }

/// Sign and mantissa of each half as they are, exponents 121 … 127: 1/64 … 2.
SDAR_DEVICE uint32_t as_bf16(uint32_t bits) {
  const uint32_t low = (121 + (bits >> 8 & 7) % 7) << 7, high = (121 + (bits >> 24 & 7) % 7) << 7;
  return (bits & 0x807f807fu) | low | high << 16;
}

SDAR_KERNEL(256, 2, fill_bf16, uint32_t* words, int64_t count, uint32_t seed) {
  const int64_t i = global_thread();
  if (!in_range(i, count)) return;
  store_global<uint32_t>(words + i, as_bf16(hash(static_cast<uint32_t>(i) ^ seed)));
}

SDAR_KERNEL(256, 2, fill_f32, float* values, int64_t count, float low, float high, uint32_t seed) {
  const int64_t i = global_thread();
  if (!in_range(i, count)) return;
  const float unit = static_cast<float>(hash(static_cast<uint32_t>(i) ^ seed) >> 8) * 0x1p-24f;
  store_global<float>(values + i, low + (high - low) * unit);
}

SDAR_KERNEL(256, 2, fill_weight_tiles, uint32_t* words, int64_t count, int tile_words, int data_words, bool bf16,
            uint32_t seed) {
  const int64_t i = global_thread();
  if (!in_range(i, count)) return;
  const uint32_t bits = hash(static_cast<uint32_t>(i) ^ seed);
  const bool scale = i % tile_words >= data_words;
  store_global<uint32_t>(words + i, scale ? f32_to_bits(0x1p-10f) : bf16 ? as_bf16(bits) : bits);
}

}  // namespace sdar::cuda

namespace gpu_bench {

using namespace sdar::cuda;

namespace {
LaunchShape shape_of(int64_t count, Stream stream) {
  return {.grid_x = static_cast<int>((count + 255) / 256), .threads = 256, .stream = stream};
}
}  // namespace

void fill_bf16(Stream stream, uint16_t* values, int64_t count, uint32_t seed) {
  const int64_t words = count / 2;
  if (words > 0)
    SDAR_LAUNCH(shape_of(words, stream), fill_bf16_kernel, reinterpret_cast<uint32_t*>(values), words, seed);
}

void fill_f32(Stream stream, float* values, int64_t count, float low, float high, uint32_t seed) {
  if (count > 0) SDAR_LAUNCH(shape_of(count, stream), fill_f32_kernel, values, count, low, high, seed);
}

void fill_weight_tiles(Stream stream, uint8_t* tiles, int64_t count, sdar::WeightFormat format, uint32_t seed) {
  const int64_t words = count * weight_tile_bytes(format) / 4;
  if (words > 0)
    SDAR_LAUNCH(shape_of(words, stream), fill_weight_tiles_kernel, reinterpret_cast<uint32_t*>(tiles), words,
                weight_tile_bytes(format) / 4, weight_tile_data_bytes(format) / 4, format == sdar::WeightFormat::bf16,
                seed);
}

}  // namespace gpu_bench
