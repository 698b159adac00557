#include <cstdio>

#include "device.h"
#include "util/error.h"

namespace gpu_bench {

using Json = nlohmann::ordered_json;

namespace {
[[noreturn]] void missing() {
  throw sdar::Error(sdar::code::kUnsupportedDevice,
                    "this sdar-gpu-bench was built without nvcc: install the CUDA toolkit and build it again with "
                    "-DSDAR_GPU_BENCH=ON (bench/gpu/run.sh does), or measure the engine alone with --device cpu");
}
}  // namespace

Json open_card(const Options&) { missing(); }
Json measure_limits() { missing(); }
Json measure_kernels(const Options&, const Json&, Budget&) { missing(); }
Json card_state() { return nullptr; }
Json card_memory() { return nullptr; }
int run_oracle_tests(int, char**) {
  std::printf("1..0 # SKIP built without nvcc\n");
  return 2;
}
Range::Range(const std::string&) {}
Range::~Range() {}
bool has_ranges() { return false; }

}  // namespace gpu_bench
