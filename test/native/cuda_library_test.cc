// What is said when there is no GPU that can be used: each thing that can be missing, by name.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "backend/cuda/cuda.h"
#include "backend/cuda/library.h"
#include "check.h"
#include "simt/device.h"

using namespace sdar;
using namespace sdar::cuda;

namespace {

struct Machine {
  int32_t driver = 13000, runtime = 13000;
  std::vector<std::pair<int32_t, int32_t>> cards;  ///< compute capabilities
} machine;

/// The host executor's interface on a pretended machine.
struct Pretended {
  SdarCudaInterface interface = cuda_host::device_interface();
  explicit Pretended(Machine m) {
    machine = std::move(m);
    interface.versions = [](int32_t* driver, int32_t* runtime, SdarCudaError*) {
      *driver = machine.driver, *runtime = machine.runtime;
      return 0;
    };
    interface.count = [](int32_t* n, SdarCudaError*) {
      *n = static_cast<int32_t>(machine.cards.size());
      return 0;
    };
    interface.properties = [](int32_t i, SdarCudaProperties* card, SdarCudaError*) {
      *card = {.name = "Pretended", .memory = 1 << 30};
      std::tie(card->major, card->minor) = machine.cards[static_cast<size_t>(i)];
      return 0;
    };
    use_interface(&interface);
  }
  ~Pretended() { use_interface(nullptr); }
};

}  // namespace

TEST("a machine without driver, with one too old, without cards, with cards too old") {
  const std::pair<Machine, const char*> machines[] = {
      {{.driver = 0}, "no NVIDIA driver answers; install one that knows CUDA 13.0"},
      {{.driver = 12080}, "the NVIDIA driver knows CUDA 12.8, and the kernels were built with CUDA 13.0"},
      {{}, "no NVIDIA GPU is visible"},
      {{.cards = {{7, 5}, {6, 1}}}, "Pretended has compute capability 7.5; 8.0 (Ampere) or newer is needed"},
  };
  for (const auto& [m, part] : machines) {
    const Pretended pretended(m);
    CHECK(probe().unavailable.find(part) == 0);
    CHECK(probe().first == -1);
    CHECK_THROWS("UNSUPPORTED_DEVICE", part, make_backend({}));
    CHECK_THROWS("UNSUPPORTED_DEVICE", part, make_backend({.device = 0}));
  }
}

TEST("the first GPU that can be used is taken; others are refused by number") {
  const Pretended pretended({.cards = {{7, 5}, {8, 9}, {9, 0}}});
  const Probe found = probe();
  CHECK(found.unavailable.empty() && found.first == 1 && found.devices.size() == 3);
  CHECK(found.devices[1].capability == "8.9" && found.devices[1].unavailable.empty() &&
        !found.devices[0].unavailable.empty());
  CHECK(make_backend({})->device() == "cuda:1" && make_backend({})->isa() == "sm_89");
  CHECK(make_backend({.device = 2})->device() == "cuda:2");
  CHECK_THROWS("UNSUPPORTED_DEVICE", "device \"cuda:0\" is not available: Pretended has compute capability 7.5",
               make_backend({.device = 0}));
  CHECK_THROWS("UNSUPPORTED_DEVICE", "device \"cuda:3\" is not available: this machine has GPUs cuda:0 to cuda:2",
               make_backend({.device = 3}));
}

TEST("a library that the GPU cannot run is found out at once, with how to build one") {
  const Pretended pretended({.cards = {{8, 9}}});
  cuda_host::break_launch(1);
  CHECK_THROWS("UNSUPPORTED_DEVICE", "cannot run on cuda:0 (Pretended): an illegal memory access was encountered",
               make_backend({}));
  cuda_host::break_launch(1);
  CHECK_THROWS("UNSUPPORTED_DEVICE", "SDAR_CUDA_ARCHITECTURES=89 npm run build:native", make_backend({}));
  cuda_host::break_launch(0);
  CHECK(make_backend({})->device() == "cuda:0");
}

TEST("a library that is not there, or is another one, is named, with how to build it") {
  setenv("SDAR_CUDA_LIBRARY", "/nowhere/libsdar_cuda.so", 1);
  Probe found = probe();
  CHECK(found.library.empty() && found.devices.empty());
  CHECK(found.unavailable.find("/nowhere/libsdar_cuda.so") != std::string::npos);
  CHECK(found.unavailable.find("npm run build:native") != std::string::npos);
  setenv("SDAR_CUDA_LIBRARY", "libdl.so.2", 1);
  found = probe();
  CHECK(found.unavailable.find("libdl.so.2 is of another version than this engine") == 0);
  unsetenv("SDAR_CUDA_LIBRARY");
}

TEST("a library that was built here comes before the one that came with a prebuilt addon") {
  namespace fs = std::filesystem;
  const fs::path root =
      fs::temp_directory_path() / ("sdar-library-" + std::to_string(std::random_device{}())) / "sdar-engine";
  const fs::path prebuilds = root / "prebuilds" / "linux-x64", release = root / "build" / "Release";
  for (const fs::path& folder : {prebuilds, release, root / "other" / "place"}) fs::create_directories(folder);
  const auto found = [](const fs::path& folder) { return fs::path(file_beside((folder / "sdar_node.node").string())); };
  CHECK(found(prebuilds) == prebuilds / "libsdar_cuda.so");
  const fs::path package = root.parent_path() / "sdar-engine-cuda";
  CHECK(!fs::exists(package));
  fs::create_directories(package);
  std::ofstream(package / "libsdar_cuda.so") << "x";
  CHECK(found(prebuilds) == package / "libsdar_cuda.so");
  std::ofstream(release / "libsdar_cuda.so") << "x";
  CHECK(found(prebuilds) == release / "libsdar_cuda.so" && found(release) == release / "libsdar_cuda.so");
  CHECK(found(root / "other" / "place") == root / "other" / "place" / "libsdar_cuda.so");
  fs::remove_all(root.parent_path());
}

int main(int argc, char** argv) { return check::run(argc, argv); }
