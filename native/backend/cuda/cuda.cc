#include "backend/cuda/cuda.h"

#include "backend/cuda/backend.h"
#include "backend/cuda/library.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

constexpr int32_t kOldest = 80;  ///< compute capability · 10: bf16 tensor cores and cp.async

std::string version_text(int32_t version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Card describe(const SdarCudaProperties& card) {
  Card c{.name = card.name,
         .capability = std::to_string(card.major) + "." + std::to_string(card.minor),
         .memory = static_cast<int64_t>(card.memory),
         .problem = {}};
  if (card.major * 10 + card.minor < kOldest)
    c.problem = c.name + " has compute capability " + c.capability + "; 8.0 (Ampere) or newer is needed";
  return c;
}

}  // namespace

Examination examine() {
  Examination found;
  const Library library = open_library();
  found.problem = library.problem;
  if (!library.interface) return found;
  const SdarCudaInterface& cuda = *library.interface;
  found.library = library.file;
  SdarCudaError error{};
  int32_t driver = 0, runtime = 0, count = 0;
  if (cuda.versions(&driver, &runtime, &error) != 0) {
    found.problem = error.message;
    return found;
  }
  found.runtime = version_text(runtime);
  if (driver > 0) found.driver = version_text(driver);
  if (driver == 0) {
    found.problem = "no NVIDIA driver answers; install one that knows CUDA " + found.runtime + " (nvidia-smi tells)";
  } else if (driver / 1000 < runtime / 1000) {
    found.problem = "the NVIDIA driver knows CUDA " + found.driver + ", and the kernels were built with CUDA " +
                    found.runtime + ": install a newer driver, or build with an older nvcc";
  } else if (cuda.count(&count, &error) != 0) {
    found.problem = error.message;
  } else if (count == 0) {
    found.problem = "no NVIDIA card is visible; see nvidia-smi and the environment's CUDA_VISIBLE_DEVICES";
  }
  if (!found.problem.empty()) return found;
  for (int32_t i = 0; i < count; i++) {
    SdarCudaProperties card{};
    if (cuda.properties(i, &card, &error) != 0) {
      found.cards.push_back({.problem = error.message});
    } else {
      found.cards.push_back(describe(card));
    }
    if (found.first < 0 && found.cards.back().problem.empty()) found.first = i;
  }
  if (found.first < 0) found.problem = found.cards.front().problem;
  return found;
}

std::unique_ptr<Backend> make_backend(const Options& options) {
  const std::string named = options.card < 0 ? "cuda" : "cuda:" + std::to_string(options.card);
  const auto refuse = [&](const std::string& why) {
    throw Error(code::kUnsupportedDevice, "device \"" + named + "\" is not available: " + why);
  };
  const Examination found = examine();
  if (found.cards.empty()) refuse(found.problem);
  const int32_t count = static_cast<int32_t>(found.cards.size()), card = options.card < 0 ? found.first : options.card;
  if (options.card < 0 && found.first < 0) refuse(found.problem);
  if (card >= count)
    refuse(count == 1 ? "this machine has one card, cuda:0"
                      : "this machine has cards cuda:0 to cuda:" + std::to_string(count - 1));
  if (!found.cards[card].problem.empty()) refuse(found.cards[card].problem);
  return std::make_unique<CudaBackend>(*open_library().interface, card, options.threads);
}

}  // namespace sdar::cuda
