// What a warp of attention.cu does with a page, and how softmax sums in parts become one.
#pragma once
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/device.cuh"

namespace sdar::cuda {

constexpr float kNoKeys = -INFINITY;  ///< largest score of a row that has seen no key

/// exp2(x · kLog2Scale) = exp(x / sqrt(head_dim)).
template <int head_dim>
inline constexpr float kLog2Scale = head_dim == 64 ? 1.44269504f * 0.125f : 1.44269504f * 0.0883883476f;

/// Factors that bring sums relative to `max` and to `other` to the larger of both, which `max` becomes. `other` is
/// finite; where max is kNoKeys its factor is 0, and sums of a chunk merged into nothing stay what they are.
struct MergeFactors {
  float own, other;
};
template <int head_dim>
SDAR_DEVICE MergeFactors merge_max(float& max, float other) {
  const float larger = maximum(max, other);
  const MergeFactors factors{exp2_fast((max - larger) * kLog2Scale<head_dim>),
                             exp2_fast((other - larger) * kLog2Scale<head_dim>)};
  max = larger;
  return factors;
}
SDAR_DEVICE float merge_sum(const MergeFactors& f, float own, float other) {
  return fused(other, f.other, own * f.own);
}

/// A block of `warps` warps of 16 query rows each, which share the pages.
template <int head_dim, int warps>
struct AttentionTile {
  static constexpr int kStages = 2;
  static constexpr int kRowTiles = kPageSlots / 8;  // of 8 keys
  static constexpr int kParts = head_dim / 8;       // of 16 bytes in a key or value
  static constexpr int kColumns = head_dim / 8;     // tiles of 8 output columns
  static constexpr int kVectorBytes = head_dim * 2, kTileBytes = kPageSlots * kVectorBytes;
  static constexpr int kStageBytes = 2 * kTileBytes;  // keys, values
  static constexpr int kTotals = kStages * kStageBytes, kTotalBytes = kColumns * 4 * kWarp * 4;
  static constexpr int kSharedBytes = kTotals + warps * kTotalBytes;

  /// Of the two rows g and g + 8 of this lane: relative to `max`, Σ of the weights of its own columns of keys, and
  /// Σ weight · value for columns 8c + 2t, + 1.
  struct State {
    float max[2], sum[2], out[kColumns][4];
  };
  SDAR_DEVICE static void clear(State& s) {
    s.max[0] = s.max[1] = kNoKeys;
    s.sum[0] = s.sum[1] = 0;
    SDAR_UNROLL
    for (int i = 0; i < kColumns * 4; i++) s.out[i / 4][i % 4] = 0;
  }

  /// 16 bytes `part` of a slot lie at part ^ (slot & 7): the 8 rows of an ldmatrix fall into different banks.
  SDAR_DEVICE static int swizzled(int slot, int part) { return slot * kVectorBytes + (part ^ (slot & 7)) * 16; }

  /// Issues the first `valid` slots of a page; the others become zeros, whatever lies in them.
  SDAR_DEVICE static void load_page(const uint16_t* keys, const uint16_t* values, int stage, int valid) {
    const Shared<uint8_t> to = shared_memory<uint8_t>(stage * kStageBytes);
    for (int i = opaque(thread_index()); i < kPageSlots * kParts; i += warps * kWarp) {
      const int slot = i / kParts, at = swizzled(slot, i % kParts);
      const bool exists = in_range(slot, valid);
      cp_async_16(to + at, keys + i * 8, exists);
      cp_async_16(to + (kTileBytes + at), values + i * 8, exists);
    }
  }

  /// scores[tile of keys]: q · key, unscaled.
  SDAR_DEVICE static void multiply_keys(int stage, const uint32_t (&q)[head_dim / 16][4],
                                        float (&scores)[kRowTiles][4]) {
    const Shared<uint8_t> keys = shared_memory<uint8_t>(stage * kStageBytes);
    const int lane = opaque(lane_index());
    SDAR_UNROLL
    for (int tile = 0; tile < kRowTiles; tile++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) scores[tile][i] = 0;
      SDAR_UNROLL
      for (int k = 0; k < head_dim / 32; k++) {
        uint32_t r[4];
        ldmatrix_x4(r, keys + (tile * 8 * kVectorBytes + swizzled(lane % 8, k * 4 + lane / 8)));
        const uint32_t first[2] = {r[0], r[1]}, second[2] = {r[2], r[3]};
        mma_m16n8k16_bf16(scores[tile], q[2 * k], first);
        mma_m16n8k16_bf16(scores[tile], q[2 * k + 1], second);
      }
    }
  }

  /// Hides the keys from slot visible[row] on.
  SDAR_DEVICE static void mask(const int (&visible)[2], float (&scores)[kRowTiles][4]) {
    SDAR_UNROLL
    for (int tile = 0; tile < kRowTiles; tile++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) {
        const int slot = tile * 8 + lane_index() % 4 * 2 + i % 2;
        if (!in_range(slot, visible[i / 2])) scores[tile][i] = kNoKeys;
      }
    }
  }

  /// The online-softmax update: a page's scores into the state's max and sum; weights: bf16 pairs of rows g and g + 8. Scores that are all
  /// hidden change no bit of the state.
  SDAR_DEVICE static void update_softmax(const float (&scores)[kRowTiles][4], State& s,
                                         uint32_t (&weights)[kRowTiles][2]) {
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      float max = s.max[row];
      SDAR_UNROLL
      for (int tile = 0; tile < kRowTiles; tile++) {
        max = maximum(max, maximum(scores[tile][2 * row], scores[tile][2 * row + 1]));
      }
      SDAR_UNROLL
      for (int distance = 1; distance <= 2; distance *= 2) {  // the four lanes of a row
        max = maximum(max, shuffle_xor(kFullMask, max, distance));
      }
      const float base = max == kNoKeys ? 0.0f : max;
      const float factor = exp2_fast((s.max[row] - base) * kLog2Scale<head_dim>);
      float sum = s.sum[row] * factor;
      SDAR_UNROLL
      for (int tile = 0; tile < kRowTiles; tile++) {
        const uint32_t pair = pack_bf16(exp2_fast((scores[tile][2 * row] - base) * kLog2Scale<head_dim>),
                                        exp2_fast((scores[tile][2 * row + 1] - base) * kLog2Scale<head_dim>));
        sum += low_bf16(pair) + high_bf16(pair);
        weights[tile][row] = pair;
      }
      s.max[row] = max;
      s.sum[row] = sum;
      SDAR_UNROLL
      for (int c = 0; c < kColumns; c++) s.out[c][2 * row] *= factor, s.out[c][2 * row + 1] *= factor;
    }
  }

  SDAR_DEVICE static void multiply_values(int stage, const uint32_t (&weights)[kRowTiles][2], State& s) {
    const Shared<uint8_t> values = shared_memory<uint8_t>(stage * kStageBytes + kTileBytes);
    const int lane = opaque(lane_index());
    SDAR_UNROLL
    for (int k = 0; k < kPageSlots / 16; k++) {
      const uint32_t a[4] = {weights[2 * k][0], weights[2 * k][1], weights[2 * k + 1][0], weights[2 * k + 1][1]};
      SDAR_UNROLL
      for (int c = 0; c < kColumns; c += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, values + (k * 16 * kVectorBytes + swizzled(lane % 16, c + lane / 16)));
        const uint32_t left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
        mma_m16n8k16_bf16(s.out[c], a, left);
        mma_m16n8k16_bf16(s.out[c + 1], a, right);
      }
    }
  }

  /// The sums of a row over the four lanes that share its keys.
  SDAR_DEVICE static void reduce_sums(State& s) {
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      SDAR_UNROLL
      for (int distance = 1; distance <= 2; distance *= 2) s.sum[row] += shuffle_xor(kFullMask, s.sum[row], distance);
    }
  }

  /// The place in shared memory of value i of this lane's total.
  SDAR_DEVICE static Shared<float> total(int i) {
    return shared_memory<float>(kTotals + warp_index() * kTotalBytes + (i * kWarp + lane_index()) * 4);
  }
  /// Merges a chunk into the totals.
  SDAR_DEVICE static void merge(const State& s, float (&max)[2], float (&sum)[2]) {
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      if (s.max[row] == kNoKeys) continue;
      const MergeFactors f = merge_max<head_dim>(max[row], s.max[row]);
      sum[row] = merge_sum(f, sum[row], s.sum[row]);
      SDAR_UNROLL
      for (int c = 0; c < kColumns; c++) {
        SDAR_UNROLL
        for (int i = 2 * row; i < 2 * row + 2; i++) {
          const Shared<float> at = total(c * 4 + i);
          store_shared<float>(at, merge_sum(f, load_shared<float>(at), s.out[c][i]));
        }
      }
    }
  }
};

}  // namespace sdar::cuda
