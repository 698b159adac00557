// Marks plain functions that CUDA compiles for the device as well.
#pragma once

#ifdef __CUDACC__
#define SDAR_HOST_DEVICE __host__ __device__
#else
#define SDAR_HOST_DEVICE
#endif
