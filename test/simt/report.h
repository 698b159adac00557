// What a launch did, for costs and claims to be held to.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "simt/access_log.h"
#include "simt/arena.h"

namespace sdar::cuda_host {

/// Bytes and counts of all blocks together.
struct Counters {
  int64_t loaded = 0;       ///< from global memory, as issued, cp_async included
  int64_t loaded_once = 0;  ///< each word counted at its first load: what must come from memory at least
  int64_t stored = 0;
  int64_t async_copied = 0;
  int64_t shared_loaded = 0, shared_stored = 0;
  int64_t mma_bf16 = 0, mma_s8 = 0;  ///< instructions of a warp
  int64_t barriers = 0;              ///< of blocks
};

struct LaunchReport : Counters {
  std::string kernel;
  int64_t blocks = 0;
  int threads = 0, shared_bytes = 0;
  struct Tensor : Traffic {
    std::string name;
  };
  std::vector<Tensor> tensors;  ///< those that were touched
  struct Place : SiteTraffic {
    std::string place;
    bool shared = false;
  };
  std::vector<Place> places;

  const Tensor& tensor(const std::string& name) const;  ///< throws Error when it was not touched
  /// Passes of shared memory beyond those that the bytes need; at one place ("gemm.cu:40"), or at all.
  int64_t bank_conflicts(const std::string& place = "") const;
};

const LaunchReport& last_launch();
Counters& counters();
/// The executor's side: begins and ends what last_launch() tells.
void begin_report(const std::string& kernel, int64_t blocks, int threads, int shared_bytes);
void end_report();
std::vector<SiteTraffic>& site_traffic();
Traffic& traffic_of(uint32_t allocation);

}  // namespace sdar::cuda_host
