// Tests and measures the CUDA backend on a machine with an NVIDIA GPU. `sdar-gpu-bench oracle [cuda:N] [part of a
// name…]` runs the kernels' oracle tests alone, printing TAP; anything else is in options.h.
#include <cstring>

#include "bench.h"
#include "device.h"

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "oracle") == 0) return gpu_bench::run_oracle_tests(argc - 1, argv + 1);
  return gpu_bench::run({argv + 1, argv + argc});
}
