// A mixture of experts, forward and backward, over rows sorted by expert.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "train/compute.h"

namespace sdar::train {

/// Offsets of an MLP's matrices in the parameters: gate and up [intermediate, hidden], down [hidden, intermediate].
struct MlpOffsets {
  int64_t gate = 0, up = 0, down = 0;
};
struct MoeOffsets {
  int64_t router = 0;  ///< [experts, hidden]
  std::vector<MlpOffsets> experts;
};

/// A slot is a row at one of its experts; slots are sorted by expert, then by row.
struct MoeState {
  std::vector<float> probabilities;  ///< [m, experts]
  std::vector<int32_t> slot_row;     ///< [m · experts_per_token]
  std::vector<int32_t> slot_expert;  ///< as slot_row
  std::vector<int32_t> row_slots;    ///< [m, experts_per_token], best expert first
  std::vector<int64_t> begin;        ///< [experts + 1]: an expert's first slot
  std::vector<float> weight;         ///< of a slot's output
  Buffer in, act;                    ///< of slots, for products
  Buffer gate, up, out;              ///< of slots
};

/// x [m, hidden] = onto + the mixture of n [m, hidden]; `renormalise`: a row's weights sum to 1. With x null
/// only the state is filled.
void moe(Compute& compute, const ModelShape& shape, bool renormalise, const MoeOffsets& at, const float* weights,
         const Operand& n, int64_t m, MoeState& state, const float* onto, float* x);
/// dn [m, hidden] is written, of dx [m, hidden]; gradients are added to, unless they are null. Takes the state's gate
/// and up for its own.
void moe_backward(Compute& compute, const ModelShape& shape, bool renormalise, const MoeOffsets& at,
                  const float* weights, const Operand& n, int64_t m, MoeState& state, const float* dx, float* dn,
                  float* gradients);

}  // namespace sdar::train
