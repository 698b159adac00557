#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_avx512vnni;
const Kernels kKernels_avx512vnni = make_table("avx512vnni");

}  // namespace sdar::cpu
