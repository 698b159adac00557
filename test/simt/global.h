// Accesses of kernels to device memory: bounds, alignment, freed and unwritten memory, races within a block and between
// blocks. Blocks run one after another, so between them order counts only where count_arrival makes it.
#pragma once
#include <cstdint>

#include "simt/sites.h"

namespace sdar::cuda_host {

/// Whether a load sees what the same launch wrote: load_global and cp_async do, the cached and streaming ones do not.
enum class Coherence : uint8_t { full, none };

void read_global(const Site& site, const void* p, uint32_t bytes, void* to, Coherence coherence);
void write_global(const Site& site, void* p, uint32_t bytes, const void* from);
uint32_t add_global(const Site& site, void* p, uint32_t n);
void fence_global(const Site& site);

}  // namespace sdar::cuda_host
