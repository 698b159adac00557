// The dynamic shared memory of the block that runs: NaN patterns at first, each access checked for bounds, alignment,
// unwritten bytes, copies in flight and races.
#pragma once
#include <cstdint>

#include "simt/sites.h"

namespace sdar::cuda_host {

/// For a new block.
void clear_shared();
void read_shared(const Site& site, int64_t offset, uint32_t bytes, void* to);
void write_shared(const Site& site, int64_t offset, uint32_t bytes, const void* from);
/// Returns the old value. Additions need no barrier between them.
uint32_t add_shared(const Site& site, int64_t offset, uint32_t n);

/// cp_async_16: takes the data now, delivers them at the wait. A null `from` copies zeros.
void copy_async(const Site& site, int64_t offset, const void* from);
void commit_copies(const Site& site);
/// Until at most `pending` committed groups of this thread are in flight.
void wait_for_copies(const Site& site, int pending);

/// 16 bytes that a warpgroup MMA reads: when it is issued, and when it is computed. Whoever wrote them must
/// have called fence_for_mma since.
void check_for_mma(const Site& site, int64_t offset);
void read_for_mma(const Site& site, int64_t offset, void* to);
void fence_for_mma();

}  // namespace sdar::cuda_host
