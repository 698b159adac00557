// Weights and activations for tests of CUDA kernels, in the layouts of backend/cuda/kernels/layout.h.
#pragma once
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <source_location>
#include <string>

#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/packing.h"
#include "bench/cost.h"
#include "check.h"
#include "cpu_kernels.h"
#include "simt/executor.h"
#include "simt/memory.h"
#include "simt/report.h"

namespace oracle {

using cuda_host::Buffer;

inline std::vector<std::byte> packed_for_cuda(WeightKind kind, WeightFormat format, const std::vector<Matrix>& parts,
                                              WeightSpec* spec_out = nullptr) {
  WeightSpec spec{kind, format, 0, parts[0].cols};
  std::vector<SourceTensor> sources;
  for (const Matrix& part : parts) {
    spec.rows += part.rows;
    sources.push_back({reinterpret_cast<const std::byte*>(part.data.data()), DType::f32, part.rows, part.cols});
  }
  std::vector<std::byte> bytes(cuda::packed_bytes(spec), std::byte{0xA5});  // what packing leaves out shows
  for (int64_t unit = cuda::pack_units(spec); unit-- > 0;) cuda::pack(spec, sources, unit, unit + 1, bytes.data());
  if (spec_out) *spec_out = spec;
  return bytes;
}

/// A weight on the device and the values that its packed form stands for, [rows, cols] in the order of its parts: those
/// of the CPU backend.
struct DeviceWeight {
  Matrix values;
  std::unique_ptr<Buffer<std::byte>> bytes;
  cuda::DeviceMatrix view;

  DeviceWeight(WeightKind kind, WeightFormat format, const std::vector<Matrix>& parts) {
    WeightSpec spec;
    bytes = std::make_unique<Buffer<std::byte>>(packed_for_cuda(kind, format, parts, &spec), "weights");
    auto cpu = fast_backend(fast_sets().back(), 1, 32);
    values = unpacked(hold(*cpu, kind, format, parts));
    view = {reinterpret_cast<const uint8_t*>(bytes->get()), kind, held_format(spec), static_cast<int32_t>(spec.rows),
            static_cast<int32_t>(spec.cols)};
  }
};

/// Activation tiles on the device. Rows past the last of `m` stay unwritten, columns past the last are zero.
inline std::unique_ptr<Buffer<uint16_t>> put_tiles(const Matrix& m, const std::string& name) {
  const int tokens = static_cast<int>(m.rows), columns = static_cast<int>(m.cols), padded = cuda::padded_k(columns);
  auto buffer =
      std::make_unique<Buffer<uint16_t>>(static_cast<size_t>(cuda::activation_elements(tokens, columns)), name);
  for (int token = 0; token < tokens; token++) {
    for (int k = 0; k < padded; k += cuda::kSliceK) {
      uint16_t slice[cuda::kSliceK] = {};
      for (int i = 0; i < cuda::kSliceK && k + i < columns; i++) slice[i] = f32_to_bf16(m.row(token)[k + i]);
      cuda_host::upload(buffer->get() + cuda::activation_index(token, k, padded), slice, sizeof slice);
    }
  }
  return buffer;
}
/// Tiles for a kernel to fill: columns past the last are zero, the rest unwritten.
inline std::unique_ptr<Buffer<uint16_t>> empty_tiles(int tokens, int columns, const std::string& name) {
  const int padded = cuda::padded_k(columns);
  auto buffer =
      std::make_unique<Buffer<uint16_t>>(static_cast<size_t>(cuda::activation_elements(tokens, columns)), name);
  const uint16_t zeros[cuda::kSliceK] = {};
  for (int token = 0; token < tokens; token++) {
    for (int k = columns, count; k < padded; k += count) {
      count = cuda::kSliceK - k % cuda::kSliceK;
      cuda_host::upload(buffer->get() + cuda::activation_index(token, k, padded), zeros, count * sizeof zeros[0]);
    }
  }
  return buffer;
}
/// Throws Error(UNWRITTEN) where a kernel left something out. Columns past the last have to be zero.
inline Matrix get_tiles(const Buffer<uint16_t>& buffer, int tokens, int columns) {
  const int padded = cuda::padded_k(columns);
  Matrix m{tokens, columns, {}};
  for (int token = 0; token < tokens; token++) {
    for (int first = 0; first < padded; first += cuda::kSliceK) {
      uint16_t bits[cuda::kSliceK];
      cuda_host::download(bits, buffer.get() + cuda::activation_index(token, first, padded), sizeof bits);
      for (int k = first; k < first + cuda::kSliceK; k++) {
        if (k < columns) m.data.push_back(bf16_to_f32(bits[k - first]));
        if (k >= columns) CHECK(bits[k - first] == 0);
      }
    }
  }
  return m;
}

/// Whether bench/gpu/occupancy.json claims the threads and the shared memory of the last launch for `name` of
/// backend/cuda/kernels/FILE; on a real device (test/native/cuda_device) nobody knows.
inline bool claimed([[maybe_unused]] const std::string& file, [[maybe_unused]] const std::string& name) {
#ifdef SDAR_CUDA_HOST
  static const auto claims = nlohmann::json::parse(std::ifstream(SDAR_SOURCE_ROOT "bench/gpu/occupancy.json"));
  const auto& claim = claims.at(file).at(name);
  const auto& report = cuda_host::last_launch();
  return claim.at("threads") == report.threads && claim.at("shared") == report.shared_bytes;
#else
  return true;
#endif
}

/// In what the last launch's counters are more than 5 % away from `want`; empty when they agree.
inline std::string difference(const cuda::Cost& want) {
  const auto& got = cuda_host::last_launch();
  std::string text;
  const auto compare = [&](const char* what, int64_t counted, int64_t expected) {
    if (std::abs(static_cast<double>(counted - expected)) <= 0.05 * static_cast<double>(expected)) return;
    text += " " + std::string(what) + " " + std::to_string(counted) + ", expected " + std::to_string(expected) + ";";
  };
  compare("loaded", got.loaded, want.loaded);
  compare("loaded_once", got.loaded_once, want.loaded_once);
  compare("stored", got.stored, want.stored);
  compare("mma", got.mma_bf16 + got.mma_s8, want.mma);
  return text;
}
inline void check_cost(const cuda::Cost& want, std::source_location at = std::source_location::current()) {
  const std::string text = difference(want);
  if (!text.empty()) check::fail(at.file_name(), static_cast<int>(at.line()), cuda_host::last_launch().kernel + text);
}

/// The largest distance in units of the last place of bf16, of values of at least `floor` of the largest; smaller ones
/// count in units of that.
inline double bf16_distance(std::span<const float> got, std::span<const float> want, double floor = 1.0 / 64) {
  double largest = 0, worst = got.size() == want.size() ? 0 : 1e9;
  for (float w : want) largest = std::max(largest, std::abs(static_cast<double>(w)));
  for (size_t i = 0; i < got.size() && i < want.size(); i++) {
    const double size = std::max(std::abs(static_cast<double>(want[i])), floor * largest);
    const double units = std::abs(static_cast<double>(got[i]) - want[i]) / std::exp2(std::floor(std::log2(size)) - 7);
    worst = std::isnan(units) ? 1e9 : std::max(worst, units);
  }
  return worst;
}

}  // namespace oracle
