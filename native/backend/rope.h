// Rotary position embedding: the angles by which a model turns queries and keys, scaled as config.json's rope_scaling
// says. One definition for all backends.
#pragma once
#include <cstdint>
#include <vector>

namespace sdar {

struct ModelShape;  // backend/backend.h

/// How the frequencies of a context that was trained shorter are stretched. Source: transformers' rope utilities.
/// - linear: all are divided by `factor`
/// - yarn: those with fewer than `beta_slow` turns in `original_context` are divided by `factor`, those with more than
///   `beta_fast` are kept, in between both are mixed ("YaRN: Efficient Context Window Extension", 2023)
/// transformers' "dynamic" begins beyond max_position_embeddings, where no position lies here: none.
struct RopeScaling {
  enum class Kind : uint8_t { none, linear, yarn } kind = Kind::none;
  double factor = 1;
  double attention_factor = 1;  ///< of cosines and sines: scores grow by its square
  double beta_fast = 32, beta_slow = 1;
  double original_context = 0;
  bool truncate = true;  ///< the bounds of the mixed dimensions are whole numbers
};

/// [head_dim / 2], in f32 as transformers computes them.
std::vector<float> inverse_frequencies(const ModelShape& shape);

/// Cosine and sine of a pair at a position, times the attention factor.
struct Rotation {
  float cos, sin;
};
Rotation rotation(float inverse_frequency, int32_t position, float attention_factor);

}  // namespace sdar
