// Number formats of stored tensors, packed weights and KV pages.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace sdar {

/// Element type of a tensor in a checkpoint file.
enum class DType : uint8_t { f32, f16, bf16 };

/// How a packed weight matrix is held.
enum class WeightFormat : uint8_t { f32, bf16, int8, int4 };

/// How keys and values lie in pages. int8 has one f32 scale per token and head.
enum class KvFormat : uint8_t { f32, bf16, int8 };

constexpr size_t bytes_of(DType t) { return t == DType::f32 ? 4 : 2; }

constexpr const char* name_of(DType t) { return t == DType::f32 ? "F32" : t == DType::f16 ? "F16" : "BF16"; }

// In the order of the enumerations.
inline constexpr std::array kWeightFormats{"f32", "bf16", "int8", "int4"};
inline constexpr std::array kKvFormats{"f32", "bf16", "int8"};

constexpr const char* name_of(WeightFormat f) { return kWeightFormats[static_cast<size_t>(f)]; }
constexpr const char* name_of(KvFormat f) { return kKvFormats[static_cast<size_t>(f)]; }

}  // namespace sdar
