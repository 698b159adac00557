// What ops compute with: worker threads, the kernels of an instruction set, scratch memory of each worker. Results have
// the same bits whatever the number of threads: work is split by outputs, or into parts that a shape alone decides.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/cpu/pool.h"
#include "train/buffer.h"
#include "train/kernels/kernels.h"

namespace sdar::train {

class Compute {
 public:
  /// threads 0: the cores this process may use; isa empty: SDAR_ISA, else the best. `format`: of the operands of every
  /// matrix product, attention's too. Throws Error: INVALID_OPTION, OUT_OF_MEMORY.
  explicit Compute(int threads = 0, const std::string& isa = "", Format format = Format::f32);

  const Kernels& kernels() const { return *kernels_; }
  Format format() const { return format_; }
  const Products& products() const { return kernels_->products[static_cast<size_t>(format_)]; }
  const Attention& attention() const { return kernels_->attention[static_cast<size_t>(format_)]; }
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
    for (Buffer& one : scratch_) grown(one, floats);
    pool_.for_each(count, [&](int64_t i, int worker) { body(i, scratch_[static_cast<size_t>(worker)].data()); });
  }
  /// Uninitialised scratch of all workers, until the next call.
  float* shared(int64_t floats) { return grown(shared_, floats); }

  /// Floats of memory that `n` values for products take.
  int64_t floats_for(int64_t n) const { return format_ == Format::f32 ? n : (n + 1) / 2; }
  /// A buffer of them, at least `n`.
  OperandOut operands(Buffer& buffer, int64_t n) const { return {grown(buffer, floats_for(n)), format_}; }

 private:
  cpu::Pool pool_;
  const Kernels* kernels_;
  Format format_;
  std::vector<Buffer> scratch_;  ///< of each worker
  Buffer shared_;
};

/// c [m, n] = a [m, k] · b [k, n], or onto + a · b where `onto` is given, which may be c; rows of c and onto are `stride`
/// apart. Operands are rounded to the format of `compute`; each element is a sum over k ascending in blocks of kBlockK,
/// whatever m, n and the threads.
void multiply(Compute& compute, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t stride,
              const float* onto = nullptr);
inline constexpr int64_t kBlockK = 256;

/// About the floats that a product takes: for all workers, and for each.
struct ProductScratch {
  int64_t shared = 0, worker = 0;
};
ProductScratch product_scratch(const Compute& compute, int64_t m, int64_t n, int64_t k);

}  // namespace sdar::train
