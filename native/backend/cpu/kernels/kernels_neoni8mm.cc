#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_neoni8mm;
const Kernels kKernels_neoni8mm = make_table("neoni8mm");

}  // namespace sdar::cpu
