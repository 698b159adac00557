#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_neondot;
const Kernels kKernels_neondot = make_table("neondot");

}  // namespace sdar::cpu
