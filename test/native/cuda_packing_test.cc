// Packed bytes of the CUDA backend, read by plain loops from the layout's description, against what the CPU backend
// packs.
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

/// The value of row `row` of the parts, column k.
float value_at(const std::vector<std::byte>& bytes, const WeightSpec& spec, int row, int k) {
  const WeightFormat format = held_format(spec);
  const int half = static_cast<int>(spec.rows / 2),
            slabs = (static_cast<int>(spec.cols) + 127) / 128 * (format == WeightFormat::bf16 ? 2 : 1);
  int tile = row / 16, r = row % 16;
  if (spec.kind == WeightKind::gate_up) tile = row % half / 8, r = row % half % 8 + (row < half ? 0 : 8);
  const auto word = [&](size_t at) {
    uint32_t w;
    std::memcpy(&w, &bytes.at(at), sizeof w);
    return w;
  };
  if (format == WeightFormat::bf16) {
    const size_t at = static_cast<size_t>(tile * slabs + k / 64) * 2048 + k % 64 / 32 * 1024 + r * 64 + k % 32 * 2;
    return bf16_to_f32(static_cast<uint16_t>(word(at / 4 * 4) >> at % 4 * 8));
  }
  const int lane = r % 8 * 4 + k % 8 / 2, high = r / 8, instruction = k % 32 / 16, in = k % 16 / 8 * 2 + k % 2;
  if (format == WeightFormat::int8) {
    const size_t slab = static_cast<size_t>(tile * slabs + k / 128) * 2112;
    static constexpr int kByte[4] = {0, 2, 1, 3};
    const uint32_t w = word(slab + k % 128 / 32 * 512 + lane * 16 + high * 8 + instruction * 4);
    return static_cast<int8_t>(w >> kByte[in] * 8) * std::bit_cast<float>(word(slab + 2048 + r * 4));
  }
  const size_t slab = static_cast<size_t>(tile * slabs + k / 128) * 1152;
  static constexpr int kNibble[2][4] = {{0, 4, 1, 5}, {2, 6, 3, 7}};
  const uint32_t w = word(slab + k % 128 / 32 * 256 + lane * 8 + high * 4);
  const int q = static_cast<int>(w >> kNibble[instruction][in] * 4 & 15) - 8;
  return static_cast<float>(q) * std::bit_cast<float>(word(slab + 1024 + (k % 128 / 64 * 16 + r) * 4));
}

void compare(WeightKind kind, WeightFormat format, const std::vector<Matrix>& parts) {
  WeightSpec spec;
  const std::vector<std::byte> bytes = packed_for_cuda(kind, format, parts, &spec);
  auto cpu = fast_backend(fast_sets().back(), 1, 32);
  const Matrix want = unpacked(hold(*cpu, kind, format, parts));
  const int rows = static_cast<int>(spec.rows), cols = static_cast<int>(spec.cols);
  int wrong = 0;
  for (int row = 0; row < rows; row++) {
    for (int k = 0; k < cols; k++) {
      const float got = value_at(bytes, spec, row, k), expected = want.row(row)[k];
      wrong += got != expected && !(std::isnan(got) && std::isnan(expected));
    }
    for (int k = cols; k < (cols + 127) / 128 * 128; k++) wrong += value_at(bytes, spec, row, k) != 0;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST("packed weights: the CPU backend's values, zeros past the last column") {
  Random random(1);
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    for (int cols : {128, 256, 40, 200}) {
      compare(WeightKind::linear, format, {random_matrix(random, 24, cols), random_matrix(random, 8, cols)});
      compare(WeightKind::linear, format, {random_matrix(random, 21, cols)});
      compare(WeightKind::gate_up, format, {random_matrix(random, 16, cols), random_matrix(random, 16, cols)});
      compare(WeightKind::gate_up, format, {random_matrix(random, 13, cols), random_matrix(random, 13, cols)});
      compare(WeightKind::table, format, {random_matrix(random, 35, cols)});
    }
  }
}

TEST("packed weights: zeros, tiny values, and a NaN that spoils its group alone") {
  Random random(2);
  for (WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
    Matrix m = random_matrix(random, 16, 256);
    for (int k = 0; k < 128; k++) m.data[k] = 0, m.data[256 + k] = 1e-38f, m.data[512 + k] *= 1e-20f;
    m.data[3 * 256 + 5] = kNan;
    compare(WeightKind::linear, format, {m});
  }
}

TEST("rows past the last are zero") {
  Random random(3);
  WeightSpec spec;
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    const auto bytes = packed_for_cuda(WeightKind::linear, format, {random_matrix(random, 18, 128)}, &spec);
    for (int row = 18; row < 32; row++) {
      for (int k = 0; k < 128; k++) CHECK(value_at(bytes, spec, row, k) == 0);
    }
  }
}

TEST("vectors and the router stay f32; parts that do not fit are refused") {
  const Matrix v{1, 5, {1, 2, 3, 4, 5}};
  WeightSpec spec;
  const auto bytes = packed_for_cuda(WeightKind::vector, WeightFormat::int4, {v}, &spec);
  CHECK(bytes.size() == 64 && std::memcmp(bytes.data(), v.data.data(), 20) == 0);
  const Matrix router{2, 3, {1, 2, 3, 4, 5, 6}};
  const auto rows = packed_for_cuda(WeightKind::linear, WeightFormat::f32, {router});
  CHECK(std::memcmp(rows.data(), router.data.data(), 24) == 0);

  std::vector<std::byte> room(1 << 16);
  const SourceTensor source{reinterpret_cast<const std::byte*>(v.data.data()), DType::f32, 1, 5};
  const WeightSpec wrong{WeightKind::linear, WeightFormat::bf16, 2, 5};
  CHECK_THROWS("INTERNAL", "[2, 5]", cuda::pack(wrong, {&source, 1}, 0, 1, room.data()));
  const WeightSpec f32_table{WeightKind::table, WeightFormat::f32, 1, 5};
  CHECK_THROWS("INTERNAL", "f32", cuda::pack(f32_table, {&source, 1}, 0, 1, room.data()));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
