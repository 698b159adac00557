// Short-lived threads for loading; the step loop has a pool of its own.
#pragma once
#include <cstdint>
#include <functional>

namespace sdar {

/// job(i) for every i in [0, count), in ascending order of start, on `threads` threads, the calling one among them.
/// `between`, if set, runs on the calling thread before and after each of its jobs. When either throws, no further job
/// starts and the first exception is rethrown once all threads have ended.
void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& job,
                  const std::function<void()>& between = {});

}  // namespace sdar
