// The queue that kernels are launched into, named without CUDA's headers: cudaStream_t is a pointer to this struct.
#pragma once

struct CUstream_st;

namespace sdar::cuda {

using Stream = CUstream_st*;

}  // namespace sdar::cuda
