#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <thread>

#include "util/machine.h"

#ifdef __linux__
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sdar {
namespace {

#ifdef __linux__
/// CPUs of a cgroup limit, infinite when there is none. Limits of all ancestors apply.
double cgroup_quota() {
  double quota = std::numeric_limits<double>::infinity();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controllers;
    // Inside a container the path may name the host's folder; the limit is then at the root.
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      if (path == "/") path.clear();
      double limit = -1, period = 100000;
      if (v2) {
        std::ifstream file(root + path + "/cpu.max");  // "max 100000" does not parse as a number: no limit
        if (!(file >> limit >> period)) limit = -1;
      } else {
        std::ifstream(root + path + "/cpu.cfs_quota_us") >> limit;
        std::ifstream(root + path + "/cpu.cfs_period_us") >> period;
      }
      if (limit > 0 && period > 0) quota = std::min(quota, limit / period);
      if (path.empty() || path.rfind('/') == std::string::npos) break;
    }
  }
  return quota;
}

/// Cores behind the CPUs of the affinity mask: siblings share one list.
int affine_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &set)) continue;
    std::string siblings;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    if (!std::getline(file, siblings)) siblings = "cpu" + std::to_string(cpu);
    cores.insert(siblings);
  }
  return static_cast<int>(cores.size());
}
#endif

}  // namespace

int usable_cores() {
#ifdef __linux__
  const double quota = cgroup_quota();
  int cores = affine_cores();
  if (quota < cores) cores = static_cast<int>(std::floor(quota));
#elif defined(__APPLE__)
  int cores = 0;
  size_t size = sizeof cores;
  if (sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) != 0) cores = 0;
#else
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#endif
  return std::max(cores, 1);
}

}  // namespace sdar
