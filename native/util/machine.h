// What this process may use of the machine: cores, memory, threads.
#pragma once
#include <cstdint>
#include <functional>

namespace sdar {

/// Physical cores this process may use: affinity, hyper-thread siblings and cgroup CPU quota (v1, v2); at least 1.
int usable_cores();

/// Bytes available without swapping, as the kernel estimates, within the cgroup's limit (v1 and v2).
int64_t available_memory();

/// Bytes that this process can ever have: the machine's memory, within the cgroup's limit.
int64_t memory_limit();

/// job(i) for every i in [0, count), in ascending order of start, on `threads` threads, the calling one among them.
/// `between`, if set, runs on the calling thread before and after each of its jobs. When either throws, no further job
/// starts and the first exception is rethrown once all threads have ended.
void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& job,
                  const std::function<void()>& between = {});

/// Keeps this library in memory, whatever its user unloads: for threads and handlers that outlive the user.
void keep_loaded();

/// The calling thread gets what time others leave.
void run_in_background();

}  // namespace sdar
