#include "simt/warp_functions.h"

#include <cstring>

#include "simt/executor.h"
#include "simt/report.h"
#include "simt/shared_memory.h"
#include "util/half.h"

namespace sdar::cuda_host {
namespace {

struct ShuffleArguments {
  const Site* site;
  Shuffle how;
  uint32_t value, result;
  int operand;
};

int source_of(Shuffle how, int lane, int operand) {
  switch (how) {
    case Shuffle::from_lane:
      return operand & 31;
    case Shuffle::exclusive_or:
      return (lane ^ operand) & 31;
    case Shuffle::down:
      return lane + operand > 31 ? lane : lane + operand;
    default:
      return lane - operand < 0 ? lane : lane - operand;
  }
}

struct MatrixArguments {
  uint16_t row[8];
  uint32_t* registers;
  int matrices;
  bool transposed;
};

struct MultiplyArguments {
  void* d;
  const uint32_t *a, *b;
};

}  // namespace

uint32_t shuffle(const Site& site, Shuffle how, uint32_t mask, uint32_t value, int operand) {
  ShuffleArguments mine{&site, how, value, 0, operand};
  meet(site, "shuffle", mask, &mine, [](void* const* all, uint32_t m) {
    for (int lane = 0; lane < 32; lane++) {
      if (!(m >> lane & 1)) continue;
      auto& to = *static_cast<ShuffleArguments*>(all[lane]);
      const int source = source_of(to.how, lane, to.operand);
      if (!(m >> source & 1))
        fault("WRONG_MASK", *to.site,
              "shuffle: lane " + std::to_string(lane) + " reads lane " + std::to_string(source) +
                  ", which is not in the mask");
      to.result = static_cast<ShuffleArguments*>(all[source])->value;
    }
  });
  return mine.result;
}

uint32_t ballot(const Site& site, const char* name, uint32_t mask, bool predicate) {
  uint32_t mine = predicate;
  meet(site, name, mask, &mine, [](void* const* all, uint32_t m) {
    uint32_t votes = 0;
    for (int lane = 0; lane < 32; lane++)
      if (m >> lane & 1) votes |= *static_cast<uint32_t*>(all[lane]) << lane;
    for (int lane = 0; lane < 32; lane++)
      if (m >> lane & 1) *static_cast<uint32_t*>(all[lane]) = votes;
  });
  return mine;
}

void load_matrices(const Site& site, int matrices, bool transposed, int64_t row, uint32_t* registers) {
  MatrixArguments mine{{}, registers, matrices, transposed};
  if (me->lane < matrices * 8) read_shared(site, row, 16, mine.row);
  meet(site, transposed ? "ldmatrix_trans" : "ldmatrix", ~0u, &mine, [](void* const* all, uint32_t) {
    auto value = [&](int matrix, int r, int c) -> uint32_t {
      return static_cast<MatrixArguments*>(all[matrix * 8 + r])->row[c];
    };
    for (int lane = 0; lane < 32; lane++) {
      auto& to = *static_cast<MatrixArguments*>(all[lane]);
      const int r = lane / 4, c = lane % 4 * 2;
      for (int i = 0; i < to.matrices; i++)
        to.registers[i] =
            to.transposed ? value(i, c, r) | value(i, c + 1, r) << 16 : value(i, r, c) | value(i, r, c + 1) << 16;
    }
  });
}

void multiply_bf16(const Site& site, float* d, const uint32_t* a, const uint32_t* b) {
  MultiplyArguments mine{d, a, b};
  meet(site, "mma_m16n8k16_bf16", ~0u, &mine, [](void* const* all, uint32_t) {
    float left[16][16], right[16][8], sum[16][8];
    auto put = [](float* low, float* high, uint32_t pair) {
      *low = bf16_to_f32(static_cast<uint16_t>(pair));
      *high = bf16_to_f32(static_cast<uint16_t>(pair >> 16));
    };
    for (int lane = 0; lane < 32; lane++) {
      const auto& from = *static_cast<MultiplyArguments*>(all[lane]);
      const int g = lane / 4, t = lane % 4 * 2;
      for (int i = 0; i < 4; i++) {
        float* to = &left[g + i % 2 * 8][t + i / 2 * 8];
        put(to, to + 1, from.a[i]);
      }
      for (int i = 0; i < 2; i++) put(&right[t + i * 8][g], &right[t + i * 8 + 1][g], from.b[i]);
      for (int i = 0; i < 4; i++) sum[g + i / 2 * 8][t + i % 2] = static_cast<float*>(from.d)[i];
    }
    for (int r = 0; r < 16; r++)
      for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++) sum[r][c] += left[r][k] * right[k][c];
    for (int lane = 0; lane < 32; lane++) {
      auto* to = static_cast<float*>(static_cast<MultiplyArguments*>(all[lane])->d);
      for (int i = 0; i < 4; i++) to[i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
    counters().mma_bf16++;
  });
}

void multiply_s8(const Site& site, int32_t* d, const uint32_t* a, const uint32_t* b) {
  MultiplyArguments mine{d, a, b};
  meet(site, "mma_m16n8k32_s8", ~0u, &mine, [](void* const* all, uint32_t) {
    int32_t left[16][32], right[32][8], sum[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const auto& from = *static_cast<MultiplyArguments*>(all[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int byte = 0; byte < 4; byte++) {
        auto part = [byte](uint32_t word) { return static_cast<int8_t>(word >> 8 * byte); };
        for (int i = 0; i < 4; i++) left[g + i % 2 * 8][t * 4 + byte + i / 2 * 16] = part(from.a[i]);
        for (int i = 0; i < 2; i++) right[t * 4 + byte + i * 16][g] = part(from.b[i]);
      }
      for (int i = 0; i < 4; i++) sum[g + i / 2 * 8][t * 2 + i % 2] = static_cast<int32_t*>(from.d)[i];
    }
    for (int r = 0; r < 16; r++)
      for (int k = 0; k < 32; k++)
        for (int c = 0; c < 8; c++) sum[r][c] += left[r][k] * right[k][c];
    for (int lane = 0; lane < 32; lane++) {
      auto* to = static_cast<int32_t*>(static_cast<MultiplyArguments*>(all[lane])->d);
      for (int i = 0; i < 4; i++) to[i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
    counters().mma_s8++;
  });
}

}  // namespace sdar::cuda_host
