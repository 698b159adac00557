#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_avx512;
const Kernels kKernels_avx512 = make_table("avx512");

}  // namespace sdar::cpu
