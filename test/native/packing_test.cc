// Packed bytes are a file format (layout ids name it): hashes of what both backends pack, for every kind and source.
#include "backend/cpu/packing.h"

#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "backend/cuda/packing.h"
#include "check.h"
#include "oracle.h"

using namespace sdar;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Shape {
  WeightKind kind;
  int64_t parts, rows, cols;  ///< rows of each part
};
constexpr Shape kShapes[] = {
    {WeightKind::vector, 1, 1, 77},   {WeightKind::linear, 1, 33, 24},   {WeightKind::linear, 3, 20, 320},
    {WeightKind::linear, 1, 70, 257}, {WeightKind::gate_up, 2, 19, 200}, {WeightKind::gate_up, 2, 40, 64},
    {WeightKind::table, 1, 67, 136},  {WeightKind::table, 1, 5, 1},
};

/// Elements that round in every way: large and tiny groups, exact ties, zeros, at times a NaN or an infinity.
std::vector<float> elements(oracle::Random& random, size_t n) {
  std::vector<float> v = random.floats(n);
  for (size_t i = 0; i < n; i++) {
    const size_t stretch = i / 96 % 8;
    if (stretch == 1) v[i] *= 1e-33f;
    if (stretch == 2) v[i] = static_cast<float>(random.below(17) - 8) / 2;
    if (stretch == 3) v[i] = 0;
    if (stretch == 4) v[i] *= 3e18f;
    if (stretch == 5 && random.below(5000) == 0) v[i] = random.below(2) ? kInf : std::nanf("");
  }
  return v;
}

struct Parts {
  std::vector<std::vector<std::byte>> memory;
  std::vector<SourceTensor> tensors;
};

Parts make_parts(oracle::Random& random, const Shape& shape, DType dtype) {
  Parts parts;
  for (int64_t i = 0; i < shape.parts; i++) {
    const auto v = elements(random, static_cast<size_t>(shape.rows * shape.cols));
    auto& bytes = parts.memory.emplace_back(v.size() * bytes_of(dtype));
    for (size_t j = 0; j < v.size(); j++) {
      uint32_t bits;
      std::memcpy(&bits, &v[j], sizeof bits);
      if (dtype == DType::bf16) bits = f32_to_bf16(v[j]);
      if (dtype == DType::f16) bits = bits >> 16 & 0xbbff;  // any finite half
      std::memcpy(&bytes[j * bytes_of(dtype)], &bits, bytes_of(dtype));
    }
    parts.tensors.push_back({bytes.data(), dtype, shape.rows, shape.cols});
  }
  return parts;
}

/// FNV-1a over the bytes of all shapes and source types, packed unit by unit into poisoned memory.
template <class Bytes, class Units, class Pack>
uint64_t hash_all(WeightFormat format, Bytes packed_bytes, Units units, Pack pack) {
  oracle::Random random(static_cast<uint64_t>(format) + 1);
  uint64_t hash = 0xcbf29ce484222325;
  for (const Shape& shape : kShapes) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const Parts parts = make_parts(random, shape, dtype);
      const WeightSpec spec{shape.kind, format, shape.parts * shape.rows, shape.cols};
      const size_t size = packed_bytes(spec);
      oracle::Held held;
      held.bytes.reset(static_cast<std::byte*>(std::aligned_alloc(64, (size + 63) / 64 * 64)));
      std::memset(held.bytes.get(), 0xA5, size);
      for (int64_t unit = units(spec); unit-- > 0;) pack(spec, parts.tensors, unit, unit + 1, held.bytes.get());
      for (size_t i = 0; i < size; i++) hash = (hash ^ std::to_integer<uint64_t>(held.bytes.get()[i])) * 0x100000001b3;
    }
  }
  return hash;
}

void check_hash(const char* layout, WeightFormat format, uint64_t hash, uint64_t expected) {
  if (hash != expected)
    std::printf("# %s %s: 0x%016llx\n", layout, name_of(format), static_cast<unsigned long long>(hash));
  CHECK(hash == expected);
}

}  // namespace

TEST("panel32-2 has the bytes that it always had") {
  constexpr uint64_t kExpected[] = {0x9942a9fb1772081a, 0xed551df00c465b9f, 0x0ca97c78692997f0, 0x27aab907bd8eea7d};
  for (WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    check_hash("panel32-2", format, hash_all(format, cpu::packed_bytes, cpu::pack_units, cpu::pack_panels),
               kExpected[static_cast<int>(format)]);
  }
}

TEST("the CUDA layout has the bytes that it always had") {
  constexpr uint64_t kExpected[] = {0, 0xab9874c431b59a57, 0xcf416cf4c1770a30, 0x095dadeee94683f0};
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    check_hash("CUDA", format, hash_all(format, cuda::packed_bytes, cuda::pack_units, cuda::pack),
               kExpected[static_cast<int>(format)]);
  }
}

int main(int c, char** v) { return check::run(c, v); }
