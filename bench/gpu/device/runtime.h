// The CUDA runtime as the measurements use it: errors, arrays, time.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/cuda/kernels/device_types.h"

namespace gpu_bench {

/// Throws Error(INTERNAL), or OUT_OF_MEMORY, that names what was done.
void succeed(cudaError_t status, const std::string& what);

/// Memory of the card; not initialised unless values are given.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    succeed(cudaMalloc(&p_, (count + 1) * sizeof(T)), "allocating " + std::to_string(count * sizeof(T)) + " bytes");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    if (!values.empty()) succeed(cudaMemcpy(p_, values.data(), values.size() * sizeof(T), cudaMemcpyDefault), "upload");
  }
  ~DeviceArray() { cudaFree(p_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return static_cast<T*>(p_); }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }
  const DeviceArray& zero() const {
    succeed(cudaMemset(p_, 0, bytes()), "clearing");
    return *this;
  }

 private:
  size_t count_;
  void* p_ = nullptr;
};

/// Times launches as the engine issues them: as nodes of a graph.
class Timer {
 public:
  Timer();
  ~Timer();

  /// Median seconds of one launch; launch(stream, i) issues the i-th of a graph, i from 0.
  double seconds(const std::function<void(sdar::cuda::Stream, int)>& launch);

 private:
  cudaGraphExec_t record(const std::function<void(sdar::cuda::Stream, int)>& launch, int count);
  double run(cudaGraphExec_t graph);

  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace gpu_bench
