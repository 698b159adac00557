#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_avx512bf16;
const Kernels kKernels_avx512bf16 = make_table("avx512bf16");

}  // namespace sdar::cpu
