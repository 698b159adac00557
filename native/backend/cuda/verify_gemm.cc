#include <algorithm>
#include <string>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/packing.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

constexpr int32_t kRows = 150, kTokens = 133;

/// Values of many magnitudes, so that rounding shows.
std::vector<float> values(size_t count, uint32_t seed) {
  std::vector<float> v(count);
  for (float& x : v) {
    seed = seed * 1664525u + 1013904223u;
    x = (static_cast<float>(seed >> 8) / 8388608.0f - 1.0f) * static_cast<float>(1u << (seed >> 4 & 7));
  }
  return v;
}

/// What the kernel leaves in the `bytes` of its result, where add finds 0.75 and others NaN patterns; nothing when the
/// GPU refuses the launch.
std::vector<std::byte> result(Device& device, Kernel kernel, const GemmParams& args, size_t bytes) {
  device.fill(args.out, args.epilogue == Epilogue::add ? 0x3f : 0xff, bytes);
  if (!device.can_launch(kernel, &args, sizeof args)) return {};
  std::vector<std::byte> got(bytes);
  device.download_now(got.data(), args.out, bytes);
  return got;
}

bool agree(Device& device, WeightKind kind, WeightFormat format, int32_t cols, Epilogue epilogue) {
  Arena memory(device);
  const WeightSpec spec{kind, format, kRows, cols};
  const bool pair = kind == WeightKind::gate_up;
  std::vector<float> source = values(static_cast<size_t>(kRows) * cols, 1);
  std::fill_n(source.begin() + 3 * cols, cols, 0.0f);  // sums of zeros: their signs
  const auto* bytes_of_source = reinterpret_cast<const std::byte*>(source.data());
  std::vector<SourceTensor> parts;
  for (int32_t part = 0; part < (pair ? 2 : 1); part++) {
    const int32_t rows = pair ? kRows / 2 : kRows;
    parts.push_back(
        {bytes_of_source + sizeof(float) * static_cast<size_t>(cols * rows * part), DType::f32, rows, cols});
  }
  std::vector<std::byte> packed(packed_bytes(spec));
  pack(spec, parts, 0, pack_units(spec), packed.data());
  auto* weight = memory.take<uint8_t>(packed.size(), "a weight to verify GEMMs with");
  device.upload_now(weight, packed.data(), packed.size());

  std::vector<uint16_t> tiles(static_cast<size_t>(activation_elements(kTokens, cols)));
  for (uint16_t seed = 1; uint16_t & x : tiles) {
    seed = static_cast<uint16_t>(seed * 25173u + 13849u);
    x = static_cast<uint16_t>((seed & 0x8000u) | (0x3e00u + (seed >> 2 & 0x1ffu)));  // ±0.125 … ±2
  }
  auto* activations = memory.take<uint16_t>(tiles.size(), "activations to verify GEMMs with");
  device.upload_now(activations, tiles.data(), tiles.size() * sizeof tiles[0]);

  GemmParams args{.weight = {.data = weight, .kind = kind, .format = format, .rows = kRows, .cols = cols},
                  .activations = activations,
                  .tokens = kTokens,
                  .epilogue = epilogue};
  const size_t count = pair ? static_cast<size_t>(activation_elements(kTokens, kRows / 2)) : size_t{kTokens} * kRows;
  const size_t bytes = count * (pair ? sizeof(uint16_t) : sizeof(float));
  args.out = memory.take<float>(ceil_div(static_cast<int32_t>(bytes), 4), "GEMMs to verify");
  args.tiles = reinterpret_cast<uint16_t*>(args.out);
  args.partials = memory.take<float>(gemm_partial_floats(args.weight, kTokens), "partial sums of GEMMs to verify");
  const size_t tickets = gemm_counters(args.weight, kTokens) * sizeof(uint32_t);
  args.counters = memory.take<uint32_t>(tickets / sizeof(uint32_t), "tickets of GEMMs to verify");
  device.fill(args.counters, 0, tickets);

  const std::vector<std::byte> want = result(device, Kernel::gemm, args, bytes);
  if (want.empty()) return false;
  for (const int32_t token_tiles : {16, 32}) {
    args.token_tiles = token_tiles;
    if (!warpgroup_takes(args.weight, token_tiles)) continue;
    if (result(device, Kernel::gemm_warpgroup, args, bytes) != want) return false;
  }
  return true;
}

}  // namespace

bool warpgroup_gemm_is_bit_exact(Device& device) {
  constexpr int32_t kUnsplit = 900, kSplit = 1152;
  bool same = true;
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    same = same && agree(device, WeightKind::linear, format, kUnsplit, Epilogue::add) &&
           agree(device, WeightKind::linear, format, kSplit, Epilogue::store) &&
           agree(device, WeightKind::linear, format, kSplit, Epilogue::add) &&
           agree(device, WeightKind::gate_up, format, kUnsplit, Epilogue::silu_mul);
  }
  if (same) return true;
  try {  // refused, or broken for good?
    device.record_event(0);
    device.wait_event(0);
  } catch (const Error& e) {
    throw Error(e.code(), std::string(e.what()) + "; it runs without cuda.warpgroupMma");
  }
  return false;
}

}  // namespace sdar::cuda
