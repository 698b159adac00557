#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "util/machine.h"

namespace sdar {

namespace {
constexpr const char* kCgroups[][2] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};

int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t value = -1;
  file >> value;  // "max" leaves -1
  return file ? value : -1;
}

int64_t mem_available() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kib = 0;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    file.ignore(64, '\n');
  }
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 2;
}
}  // namespace

int64_t memory_limit() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  for (const auto& [limit, usage] : kCgroups)
    if (const int64_t max = number_in(limit); max > 0) bytes = std::min(bytes, max);
  return bytes;
}

int64_t available_memory() {
  int64_t bytes = mem_available();
  for (const auto& [limit, usage] : kCgroups) {
    const int64_t max = number_in(limit), used = number_in(usage);
    if (max > 0 && used >= 0) bytes = std::min(bytes, std::max<int64_t>(0, max - used));
  }
  return bytes;
}

}  // namespace sdar
