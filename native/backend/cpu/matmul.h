// GEMMs over packed panels, split over the threads of a pool. Rows are made ready (normalised, rounded), then
// panels pass over them. A large matrix is split by panels, so that each thread reads its part of the weights only. A
// small one that the caches hold, and enough rows, are split by rows: a thread keeps its rows from one GEMM to the
// next, and nothing but weights moves between cores. Contract: backend/linear.h.
#pragma once
#include <cstdint>

#include "backend/cpu/buffer.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/packing.h"
#include "backend/cpu/pool.h"

namespace sdar::cpu {

/// Memory of the activations of one GEMM.
class ActivationRows {
 public:
  Activations reserve(const Kernels& kernels, WeightFormat format, int64_t k, int64_t rows);

 private:
  Buffer<std::byte> data_;
  Buffer<float> scales_;
  Buffer<int32_t> offsets_;
};

/// Rows of a matrix [·, cols], through RMSNorm when `norm` is set.
struct RowSource {
  const float* x = nullptr;
  int64_t cols = 0;
  const float* norm = nullptr;
  float eps = 0;
  const int32_t* rows = nullptr;  ///< row of x behind each row; null: the same
};

class Matmul {
 public:
  Matmul(const Kernels& kernels, Pool& pool) : kernels_(kernels), pool_(pool) {}

  const Kernels& kernels() const { return kernels_; }
  Pool& pool() { return pool_; }

  /// The m rows of `source` in memory of `rows`, for weights of `format`.
  Activations prepare(const RowSource& source, WeightFormat format, int64_t m, ActivationRows& rows);

  /// prepare() and multiply() in one, whose outputs lie close together; the ready rows are kept in `rows`.
  void run(const RowSource& source, const PackedWeight& weight, int64_t m, Epilogue epilogue, float* out,
           ActivationRows& rows);
  /// out (a row every out_stride floats) = epilogue(a·Wᵀ) for m rows.
  void multiply(const PackedWeight& weight, const Activations& a, int64_t m, Epilogue epilogue, float* out,
                int64_t out_stride);
  /// One panel of that, or `count` in a row where the set takes them together.
  void multiply_panel(const PackedWeight& weight, int64_t panel, const Activations& a, int64_t m, Epilogue epilogue,
                      float* out, int64_t out_stride, int64_t count = 1) const;

  /// The activations from row `row` on.
  static Activations rows_from(Activations a, int64_t row);

  /// Pool::for_each, or a plain loop when `work` (about so many multiply-adds) is too small to be worth waking threads.
  template <class Body>
  void parallel_for(int64_t count, int64_t work, Body&& body) {
    if (work >= kSerialWork) return pool_.for_each(count, body);
    for (int64_t i = 0; i < count; i++) body(i, 0);
  }

 private:
  /// Rows begin … end of what prepare() makes.
  void prepare_rows(const RowSource& source, WeightFormat format, int64_t begin, int64_t end,
                    const Activations& a) const;
  /// Whether m rows and this weight are split by rows.
  bool by_rows(const PackedWeight& weight, int64_t m) const;

  static constexpr int64_t kSerialWork = 1 << 16;
  static constexpr int64_t kStreamedRows = 128;     // up to so many, the next panel is fetched while one is in use
  static constexpr int64_t kPartRows = 32;          // rows are not split finer beside panels
  static constexpr int64_t kCachedBytes = 1 << 20;  // a weight up to so large is read again by every thread
  static constexpr int64_t kLeastRows = 4;          // per thread; fewer rows do not hide that reading
  static constexpr int64_t kPassRows = 64;          // that pass over the weights together

  const Kernels& kernels_;
  Pool& pool_;
};

}  // namespace sdar::cpu
