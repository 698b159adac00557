// sdar-gpu-bench as a function.
#pragma once
#include <string>
#include <vector>

namespace gpu_bench {

/// Exit status: 0; 1 when a kernel differs from its oracle or a request failed; 2 when it cannot run as asked.
int run(const std::vector<std::string>& arguments);

}  // namespace gpu_bench
