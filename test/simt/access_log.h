// What the lanes of a warp access together: the k-th time each lane is at a call site since the warp last met.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sdar::cuda_host {

/// Of one call site, over a launch. A shared access of a warp takes at least one pass per 128 bytes; one more for each
/// further word of a bank. A global one touches sectors of 32 bytes.
struct SiteTraffic {
  int64_t accesses = 0;  ///< by warps
  int64_t units = 0;     ///< passes or sectors taken
  int64_t least = 0;     ///< passes or sectors that so many bytes need
};

class AccessLog {
 public:
  void add(uint16_t site, bool shared, int lane, uint64_t address, uint32_t bytes);
  /// The warp met: counts what was logged into `traffic`, [2 · site + shared].
  void close(std::vector<SiteTraffic>& traffic);

 private:
  struct Access {
    uint32_t lanes = 0, bytes = 0;
    uint64_t address[32];
  };
  struct PerSite {
    uint32_t count[32] = {};
    std::vector<Access> accesses;
    size_t used = 0;
  };
  std::vector<PerSite> sites_;
  std::vector<uint32_t> touched_;
};

}  // namespace sdar::cuda_host
