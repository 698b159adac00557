// The SIMT executor behind the C interface of the CUDA library, so that a whole engine can run on it. Copies and launches
// happen when they are issued; it knows no graphs, so that recorded launches are run one by one.
#pragma once
#include "backend/cuda/abi/abi.h"
#include "model/config.h"
#include "util/error.h"

namespace sdar::cuda_host {

/// One device, "host executor", sm_86 by its shared memory.
const cuda::SdarCudaInterface& device_interface();

/// The n-th launch from now on fails as a device would that is broken, or with `code`; 0: none.
void break_launch(int n, const char* code = code::kDeviceFailed);

/// A dense layer of one head of 64, the smallest that the backend takes; embedding and head are one.
ModelConfig smallest_config(int32_t vocabulary, int32_t mask_id);

}  // namespace sdar::cuda_host
