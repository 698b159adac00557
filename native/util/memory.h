// How much memory this process may still take.
#pragma once
#include <cstdint>

namespace sdar {

/// Bytes available without swapping, as the kernel estimates, within the cgroup's limit (v1 and v2).
int64_t available_memory();

}  // namespace sdar
