#include "backend/cuda/products_agree.h"

#include <algorithm>
#include <vector>

#include "backend/cuda/packing.h"

namespace sdar::cuda {
namespace {

// Odd in rows and tokens, two parts of k where there are parts.
constexpr int32_t kRows = 150, kTokens = 133, kCols = 1152;

/// Values of many magnitudes, so that rounding shows.
std::vector<float> values(size_t count, uint32_t seed) {
  std::vector<float> v(count);
  for (float& x : v) {
    seed = seed * 1664525u + 1013904223u;
    x = (static_cast<float>(seed >> 8) / 8388608.0f - 1.0f) * static_cast<float>(1u << (seed >> 4 & 7));
  }
  return v;
}

/// What the kernel leaves in the `bytes` of its result, NaN patterns where it wrote nothing; nothing when the card
/// refuses the launch.
std::vector<std::byte> result(Device& device, Kernel kernel, const GemmArgs& args, size_t bytes) {
  device.fill(args.out, args.epilogue == Epilogue::add ? 0 : 0xff, bytes);
  if (!device.can_launch(kernel, &args, sizeof args)) return {};
  std::vector<std::byte> got(bytes);
  device.download_now(got.data(), args.out, bytes);
  return got;
}

bool agree(Device& device, WeightKind kind, WeightFormat format, Epilogue epilogue) {
  Arena memory(device);
  const WeightSpec spec{kind, format, kRows, kCols};
  const bool pair = kind == WeightKind::gate_up;
  const std::vector<float> source = values(size_t{kRows} * kCols, 1);
  const auto* bytes_of_source = reinterpret_cast<const std::byte*>(source.data());
  std::vector<SourceTensor> parts;
  for (int32_t part = 0; part < (pair ? 2 : 1); part++) {
    const int32_t rows = pair ? kRows / 2 : kRows;
    parts.push_back({bytes_of_source + sizeof(float) * kCols * rows * part, DType::f32, rows, kCols});
  }
  std::vector<std::byte> packed(packed_bytes(spec));
  pack(spec, parts, 0, pack_units(spec), packed.data());
  auto* weight = memory.take<uint8_t>(packed.size(), "a weight to compare products with");
  device.upload_now(weight, packed.data(), packed.size());

  std::vector<uint16_t> tiles(static_cast<size_t>(activation_elements(kTokens, kCols)));
  for (uint16_t seed = 1; uint16_t & x : tiles) {
    seed = static_cast<uint16_t>(seed * 25173u + 13849u);
    x = static_cast<uint16_t>((seed & 0x8000u) | (0x3e00u + (seed >> 2 & 0x1ffu)));  // ±0.125 … ±2
  }
  auto* activations = memory.take<uint16_t>(tiles.size(), "activations to compare products with");
  device.upload_now(activations, tiles.data(), tiles.size() * sizeof tiles[0]);

  GemmArgs args{.weight = {.data = weight, .kind = kind, .format = format, .rows = kRows, .cols = kCols},
                .activations = activations,
                .tokens = kTokens,
                .epilogue = epilogue};
  const size_t count = pair ? static_cast<size_t>(activation_elements(kTokens, kRows / 2)) : size_t{kTokens} * kRows;
  const size_t bytes = count * (pair ? sizeof(uint16_t) : sizeof(float));
  args.out = memory.take<float>(ceil_div(static_cast<int32_t>(bytes), 4), "products to compare");
  args.tiles = reinterpret_cast<uint16_t*>(args.out);
  args.partials = memory.take<float>(gemm_partial_floats(args.weight, kTokens), "parts of products to compare");
  const size_t tickets = gemm_tickets(args.weight, kTokens) * sizeof(uint32_t);
  args.tickets = memory.take<uint32_t>(tickets / sizeof(uint32_t), "tickets of products to compare");
  device.fill(args.tickets, 0, tickets);

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

bool products_agree(Device& device) {
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    if (!agree(device, WeightKind::linear, format, Epilogue::store)) return false;
    if (!agree(device, WeightKind::linear, format, Epilogue::add)) return false;
    if (!agree(device, WeightKind::gate_up, format, Epilogue::silu_mul)) return false;
  }
  return true;
}

}  // namespace sdar::cuda
