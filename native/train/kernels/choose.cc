#include "train/kernels/kernels.h"

namespace sdar::train {

extern const Kernels kKernels_portable;
#ifdef SDAR_HAS_avx2
extern const Kernels kKernels_avx2;
#endif
#ifdef SDAR_HAS_avx512
extern const Kernels kKernels_avx512;
#endif
#ifdef SDAR_HAS_avx512bf16
extern const Kernels kKernels_avx512bf16;
#endif

const Kernels& kernels_for([[maybe_unused]] const std::string& isa) {
#ifdef SDAR_HAS_avx512bf16
  if (isa == "avx512bf16" || isa == "avx512amx") return kKernels_avx512bf16;
#endif
#ifdef SDAR_HAS_avx512
  if (isa.starts_with("avx512")) return kKernels_avx512;
#endif
#ifdef SDAR_HAS_avx2
  if (isa.starts_with("avx2")) return kKernels_avx2;
#endif
  return kKernels_portable;
}

}  // namespace sdar::train
