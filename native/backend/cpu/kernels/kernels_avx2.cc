#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_avx2;
const Kernels kKernels_avx2 = make_table("avx2");

}  // namespace sdar::cpu
