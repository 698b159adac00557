#include "backend/cpu/kernels/amx_panel.h"
#include "backend/cpu/kernels/rows.h"
#include "cpu_amx_test.h"

namespace amx_emulation {

using namespace sdar::cpu;

const Kernels kKernels = {"avx512amx", {4, 2, 1, 1}, prepare,  TilePanels<PlainTiles>::run,
                          logit_stats, exp_shifted,  at_least, kPanelGroupBytes};

bool configured() { return PlainTiles::configured(); }

void multiply(Product product, int rows, int depth, const void* a, const void* b, void* d) {
  TileConfig config;
  const int tile_rows[3] = {rows, rows, depth};
  for (int t = 0; t < 3; t++) {
    config.rows[t] = static_cast<uint8_t>(tile_rows[t]);
    config.bytes_per_row[t] = static_cast<uint16_t>(t == 1 ? 4 * depth : 64);
  }
  PlainTiles::configure(config);
  PlainTiles::load<0>(d, 64);
  PlainTiles::load<1>(a, 64);
  PlainTiles::load<2>(b, 64);
  if (product == Product::int8_signed) PlainTiles::multiply_signed<0, 1, 2>();
  if (product == Product::int8_unsigned) PlainTiles::multiply_unsigned<0, 1, 2>();
  if (product == Product::bf16) PlainTiles::multiply_bf16<0, 1, 2>();
  PlainTiles::store<0>(d, 64);
  PlainTiles::release();
}

}  // namespace amx_emulation
