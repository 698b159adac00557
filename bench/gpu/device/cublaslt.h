// cuBLASLt as a yardstick, where a machine has it: opened at run time, its entry points declared here.
#pragma once
#include <cstdint>
#include <memory>

#include "backend/cuda/kernels/device_types.h"

namespace gpu_bench {

/// y [tokens, rows] f32 or bf16 = x [tokens, cols] bf16 · Wᵀ, W [rows, cols] bf16, all row-major.
class CublasLt {
 public:
  /// Null where the library is not found or does not answer.
  static std::unique_ptr<CublasLt> open();
  ~CublasLt();

  /// Chooses the algorithm that cuBLASLt ranks first. False when it has none.
  bool prepare(int64_t rows, int64_t cols, int64_t tokens, bool bf16_out);
  void multiply(sdar::cuda::Stream stream, const void* weight, const void* x, void* y);

 private:
  CublasLt();
  void forget();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gpu_bench
