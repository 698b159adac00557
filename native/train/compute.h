// What ops compute with: worker threads, the kernels of an instruction set, scratch memory of each worker. Results have
// the same bits whatever the number of threads: work is split by outputs, or into parts that a shape alone decides.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/cpu/pool.h"
#include "train/kernels/kernels.h"

namespace sdar::train {

class Compute {
 public:
  /// threads 0: the cores this process may use; isa empty: SDAR_ISA, else the best. Throws Error: INVALID_OPTION,
  /// OUT_OF_MEMORY.
  explicit Compute(int threads = 0, const std::string& isa = "");

  const Kernels& kernels() const { return *kernels_; }
  int threads() const { return pool_.threads(); }

  /// body(begin, end) for chunks of at most `chunk` of [0, count).
  template <class Body>
  void split(int64_t count, int64_t chunk, Body&& body) {
    pool_.for_each((count + chunk - 1) / chunk,
                   [&](int64_t i, int) { body(i * chunk, std::min(count, (i + 1) * chunk)); });
  }
  /// body(index, scratch) for every index, `floats` of uninitialised scratch for the time of the call.
  template <class Body>
  void with_scratch(int64_t count, int64_t floats, Body&& body) {
    reserve(floats);
    pool_.for_each(count, [&](int64_t i, int worker) { body(i, scratch_[static_cast<size_t>(worker)].data()); });
  }

 private:
  void reserve(int64_t floats);

  cpu::Pool pool_;
  const Kernels* kernels_;
  std::vector<std::vector<float>> scratch_;  ///< of each worker
};

/// A matrix in any order: element (i, j) is data[i · row + j · column].
struct View {
  const float* data;
  int64_t row, column;
};

/// c [m, n], rows `stride` apart, = a [m, k] · b [k, n], or += where `add`. Each element is a sum over k ascending in
/// blocks of kBlockK, whatever m, n and the threads.
void multiply(Compute& compute, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t stride,
              bool add);
inline constexpr int64_t kBlockK = 256;

}  // namespace sdar::train
