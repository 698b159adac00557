#include "train/compute.h"

#include "backend/cpu/cpu.h"
#include "train/kernels/pack.h"
#include "util/machine.h"

namespace sdar::train {
namespace {

constexpr int64_t kBlockM = 192, kBlockN = 256;

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

}  // namespace

Compute::Compute(int threads, const std::string& isa)
    : pool_(threads > 0 ? threads : usable_cores()),
      kernels_(&kernels_for(cpu::choose_isa(isa))),
      scratch_(static_cast<size_t>(pool_.threads())) {}

void Compute::reserve(int64_t floats) {
  for (std::vector<float>& one : scratch_)
    if (static_cast<int64_t>(one.size()) < floats) one.resize(static_cast<size_t>(floats));
}

void multiply(Compute& compute, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t stride,
              bool add) {
  if (m == 0 || n == 0) return;
  const Kernels& kernels = compute.kernels();
  const int64_t tile_rows = kernels.tile_rows, tile_columns = kernels.tile_columns;
  // How outputs are cut may follow the threads: which block an element is in does not change its sum.
  const int64_t block_n = std::min(kBlockN, round_up(n, tile_columns)), across = (n + block_n - 1) / block_n;
  int64_t down = (m + kBlockM - 1) / kBlockM;
  const int64_t threads = compute.threads();
  if (threads > 1 && down * across < 8 * threads)
    down = (round_up(std::max(down * across, 2 * threads), threads) + across - 1) / across;
  const int64_t block_m = round_up((m + down - 1) / down, tile_rows), depth = std::min(k, kBlockK);
  down = (m + block_m - 1) / block_m;
  const int64_t packed_a = block_m * depth, packed_b = block_n * depth;
  compute.with_scratch(
      down * across, packed_a + packed_b + tile_rows * tile_columns, [&](int64_t index, float* scratch) {
        const int64_t i0 = index / across * block_m, j0 = index % across * block_n;
        const int64_t rows = std::min(block_m, m - i0), columns = std::min(block_n, n - j0);
        float *left = scratch, *right = left + packed_a, *edge = right + packed_b;
        if (k == 0 && !add)
          for (int64_t i = 0; i < rows; i++) std::fill_n(c + (i0 + i) * stride + j0, columns, 0.0f);
        for (int64_t p0 = 0; p0 < k; p0 += kBlockK) {
          const int64_t count = std::min(kBlockK, k - p0);
          const bool onto = add || p0 > 0;
          pack(a.data + i0 * a.row + p0 * a.column, a.row, a.column, rows, count, tile_rows, left, count * tile_rows);
          pack(b.data + p0 * b.row + j0 * b.column, b.column, b.row, columns, count, tile_columns, right,
               count * tile_columns);
          for (int64_t j = 0; j < columns; j += tile_columns) {
            for (int64_t i = 0; i < rows; i += tile_rows) {
              float* to = c + (i0 + i) * stride + j0 + j;
              const float *x = left + i * count, *y = right + j * count;
              const int64_t height = std::min(tile_rows, rows - i), width = std::min(tile_columns, columns - j);
              if (height == tile_rows && width == tile_columns) {
                kernels.tile(count, x, y, to, stride, onto);
                continue;
              }
              kernels.tile(count, x, y, edge, tile_columns, false);
              for (int64_t r = 0; r < height; r++)
                for (int64_t s = 0; s < width; s++)
                  to[r * stride + s] =
                      onto ? to[r * stride + s] + edge[r * tile_columns + s] : edge[r * tile_columns + s];
            }
          }
        }
      });
}

}  // namespace sdar::train
