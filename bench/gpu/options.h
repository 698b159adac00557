// The command line of sdar-gpu-bench.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "backend/formats.h"

namespace gpu_bench {

struct Options {
  std::string device = "cuda:0";  ///< cuda:N, or cpu: the engine's part alone
  std::string out = "gpu-bench";  ///< folder of results.json, report.md and throughput.svg
  std::vector<std::string> sections{"oracle", "limits", "kernels", "engine"};
  std::vector<std::string> shapes{"sdar-4b", "sdar-1.7b"};
  std::vector<int32_t> batches{1, 8, 32, 128};
  std::vector<int32_t> blocks{4, 8, 16, 32};
  std::vector<int32_t> rates{2, 1, 4};  ///< tokens per forward; those that do not divide a block are left out there
  std::vector<sdar::WeightFormat> kernel_formats{sdar::WeightFormat::bf16, sdar::WeightFormat::int8,
                                                 sdar::WeightFormat::int4};
  sdar::WeightFormat weights = sdar::WeightFormat::bf16;  ///< of the engine
  int32_t prompt = 128, answer = 256;
  double seconds = 1.5;  ///< of each measurement of the engine
  double minutes = 8;    ///< for everything
  std::string models;    ///< only write the shapes (models.h) to this file
  bool help = false;

  bool wants(const std::string& section) const;
  bool on_cpu() const { return device == "cpu"; }
  int device_index() const;  ///< N of cuda:N
};

extern const char kUsage[];
/// Throws Error(INVALID_OPTION) that names the option, the value and what is allowed.
Options parse_options(const std::vector<std::string>& arguments);

}  // namespace gpu_bench
