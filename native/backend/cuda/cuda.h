// Entry of the CUDA backend. Its kernels lie in a library of their own, libsdar_cuda, which is opened when something
// here is first called: from where SDAR_CUDA_LIBRARY says, else beside the file that holds this code (the addon).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace sdar::cuda {

struct Card {
  std::string name;
  std::string capability;  ///< "9.0"
  int64_t memory = 0;      ///< bytes
  std::string problem;     ///< why it cannot be used; empty: it can
};

/// What this machine has.
struct Examination {
  std::string library;          ///< the file that was opened, or none
  std::string driver, runtime;  ///< versions of CUDA: what the driver knows, what the library was made with
  std::vector<Card> cards;
  std::string problem;  ///< why no card can be used, and what to do about it; empty: one can
  int32_t first = -1;   ///< the first card that can be used
};
Examination examine();

/// What of a model this backend cannot run, as "heads of 80 columns; allowed: 64, 128"; empty when it can.
std::string unsupported(const ModelShape& shape, WeightFormat weights, KvFormat kv);

struct Options {
  int32_t card = -1;  ///< −1: the first that can be used
  int threads = 0;    ///< that pack weights; 0: up to 16
};
/// Throws Error: UNSUPPORTED_DEVICE saying exactly what is missing; OUT_OF_MEMORY, DEVICE_FAILED.
std::unique_ptr<Backend> make_backend(const Options& options);

}  // namespace sdar::cuda
