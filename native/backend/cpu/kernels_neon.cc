#include "backend/cpu/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_neon;
const Kernels kKernels_neon = make_table("neon");

}  // namespace sdar::cpu
