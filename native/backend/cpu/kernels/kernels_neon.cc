#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_neon;
const Kernels kKernels_neon = make_table("neon");

}  // namespace sdar::cpu
