// How many cores this process may compute on.
#pragma once

namespace sdar {

/// Physical cores this process may use: affinity, hyper-thread siblings and cgroup CPU quota (v1, v2); at least 1.
int usable_cores();

}  // namespace sdar
