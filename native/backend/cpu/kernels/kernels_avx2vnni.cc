#include "backend/cpu/kernels/table.h"

namespace sdar::cpu {

extern const Kernels kKernels_avx2vnni;
const Kernels kKernels_avx2vnni = make_table("avx2vnni");

}  // namespace sdar::cpu
