// gemm_warpgroup in a whole engine under the SIMT executor: taken on a device of compute capability 9.0 when it gives
// gemm's bits there, left alone otherwise.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "backend/cuda/backend.h"
#include "backend/cuda/library.h"
#include "check.h"
#include "golden_cases.h"
#include "harness.h"
#include "simt/device.h"
#include "simt/executor.h"

using namespace sdar;

namespace {

int launches = 0;      ///< of gemm_warpgroup
bool without = false;  ///< it writes nothing, as in a library without code for warpgroups
bool deadly = false;   ///< it breaks the device for good
bool dead = false;

int32_t broken(cuda::SdarCudaError* error) {
  std::snprintf(error->code, sizeof error->code, "%s", code::kDeviceFailed);
  std::snprintf(error->message, sizeof error->message, "an illegal instruction was encountered");
  return 1;
}

/// The SIMT executor as a device of one multiprocessor and compute capability 9.0.
const cuda::SdarCudaInterface& sm_90() {
  static cuda::SdarCudaInterface interface = cuda_host::device_interface();
  interface.properties = [](int32_t index, cuda::SdarCudaProperties* to, cuda::SdarCudaError* error) {
    const int32_t status = cuda_host::device_interface().properties(index, to, error);
    to->major = 9, to->minor = 0, to->multiprocessors = 1;
    return status;
  };
  interface.launch = [](cuda::SdarCudaDevice* device, int32_t kernel, const void* arguments, size_t bytes,
                        cuda::SdarCudaError* error) {
    if (kernel == static_cast<int32_t>(cuda::Kernel::gemm_warpgroup)) {
      launches++;
      if (without) return 0;
      dead = deadly;
    }
    if (dead) return broken(error);
    return cuda_host::device_interface().launch(device, kernel, arguments, bytes, error);
  };
  interface.record_event = [](cuda::SdarCudaDevice*, int32_t, cuda::SdarCudaError* error) {
    return dead ? broken(error) : 0;
  };
  return interface;
}

struct Executor {
  explicit Executor(const cuda::SdarCudaInterface& interface) {
    cuda::use_interface(&interface);
    cuda_host::set_shared_limit(227 * 1024);
  }
  ~Executor() {
    cuda::use_interface(nullptr);
    cuda_host::set_shared_limit(99 * 1024);
  }
};

EngineOptions options_of(WeightFormat format) {
  return {.path = "models/sdar-nano",
          .device = "cuda",
          .weights = format,
          .threads = 1,
          .max_concurrent = 16,
          .kv_tokens = 4096,
          .max_rows = 256,
          .prefill_rows = 256,
          .prefix_cache = false,
          .cuda_warpgroup_mma = true};
}

/// Requests together, of more than 64 prompt positions.
std::vector<harness::Result> outcomes(WeightFormat format, std::string& isa) {
  harness::Runner runner(options_of(format));
  isa = runner.engine().model().backend->isa();
  std::vector<Request> requests;
  for (int i = 0; i < 5; i++) {
    requests.push_back(golden::request_of(golden::cases("sdar-nano")[static_cast<size_t>(i)]));
    requests.back().max_tokens = 4;
  }
  return runner.run(requests);
}

}  // namespace

TEST("warpgroup MMA: verified, then taken, with the same bits") {
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    std::string isa;
    std::vector<harness::Result> with, other;
    {
      const Executor executor(sm_90());
      launches = 0;
      with = outcomes(format, isa);
    }
    CHECK(isa == "sm_90 wgmma");
    const int of_the_check = 10;  // two tiles for bf16's store, add and silu·mul, where they may be had, one else
    CHECK(launches > of_the_check);
    {
      const Executor executor(cuda_host::device_interface());
      other = outcomes(format, isa);
    }
    CHECK(isa == "sm_86");
    for (size_t i = 0; i < with.size(); i++) {
      CHECK(with[i].error.empty() && with[i].same(other[i]));
    }
  }
}

TEST("a library without code for warpgroups, or other bits: gemm and gemm_large compute") {
  const Executor executor(sm_90());
  without = true;
  launches = 0;
  std::string isa;
  const auto got = outcomes(WeightFormat::bf16, isa);
  without = false;
  CHECK(isa == "sm_90" && launches == 1);
  for (const auto& one : got) CHECK(one.error.empty() && !one.tokens.empty());

  cuda_host::set_shared_limit(99 * 1024);  // the launch is refused
  launches = 0;
  outcomes(WeightFormat::bf16, isa);
  CHECK(isa == "sm_90" && launches == 1);
}

TEST("a device that the check breaks says how to do without it, and does without it then") {
  const Executor executor(sm_90());
  deadly = true;
  CHECK_THROWS("DEVICE_FAILED", "it runs without cuda.warpgroupMma",
               cuda::make_backend({.threads = 1, .warpgroup_mma = true}));
  dead = false;
  CHECK(cuda::make_backend({.threads = 1})->isa() == "sm_90");
  deadly = false;
}

TEST("off unless asked for, by the option or the environment") {
  const Executor executor(sm_90());
  CHECK(cuda::make_backend({.threads = 1})->isa() == "sm_90");
  CHECK(cuda::make_backend({.threads = 1, .warpgroup_mma = true})->isa() == "sm_90 wgmma");
  setenv("SDAR_CUDA_WARPGROUP_MMA", "1", 1);
  CHECK(cuda::make_backend({.threads = 1})->isa() == "sm_90 wgmma");
  setenv("SDAR_CUDA_WARPGROUP_MMA", "0", 1);
  CHECK(cuda::make_backend({.threads = 1})->isa() == "sm_90");
  unsetenv("SDAR_CUDA_WARPGROUP_MMA");
}

TEST("gemm_warpgroup's tiles: none for few tokens or blocks, wide ones where they fill the device") {
  const cuda::DeviceMatrix wide{.kind = WeightKind::gate_up, .format = WeightFormat::bf16, .rows = 19456, .cols = 2560};
  const cuda::DeviceMatrix few{.kind = WeightKind::linear, .format = WeightFormat::bf16, .rows = 1024, .cols = 4096};
  CHECK(cuda::warpgroup_tiles(wide, 64, 132) == 0);
  CHECK(cuda::warpgroup_tiles(wide, 256, 132) == 16);
  CHECK(cuda::warpgroup_tiles(wide, 2048, 132) == 32);
  CHECK(cuda::warpgroup_tiles(few, 256, 132) == 0);
  CHECK(cuda::warpgroup_tiles(few, cuda::kMaxSplitTokens + 1, 132) == 16);
  cuda::DeviceMatrix scaled = wide;
  scaled.format = WeightFormat::int8;
  CHECK(cuda::warpgroup_tiles(scaled, 2048, 132) == 16);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
