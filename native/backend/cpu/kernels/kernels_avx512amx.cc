#include "backend/cpu/kernels/amx_panel.h"
#include "backend/cpu/kernels/rows.h"

namespace sdar::cpu {

extern const Kernels kKernels_avx512amx;
const Kernels kKernels_avx512amx = {"avx512amx", {4, 2, 1, 1}, prepare,         TilePanels<HardwareTiles>::run,
                                    logit_stats, exp_shifted,  kPanelGroupBytes};

}  // namespace sdar::cpu
