#include "device.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define SDAR_NVTX 1
#endif

namespace gpu_bench {

#ifdef SDAR_NVTX
Range::Range(const std::string& name) { nvtxRangePushA(name.c_str()); }
Range::~Range() { nvtxRangePop(); }
bool has_ranges() { return true; }
#else
Range::Range(const std::string&) {}
Range::~Range() {}
bool has_ranges() { return false; }
#endif

}  // namespace gpu_bench
