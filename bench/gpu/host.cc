#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "sections.h"

namespace gpu_bench {

nlohmann::ordered_json describe_host() {
  utsname system{};
  uname(&system);
  std::string cpu = system.machine;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) != 0 || colon == std::string::npos) continue;
    cpu = line.substr(colon + 2);
    break;
  }
  return {{"cpu", cpu},
          {"cores", std::thread::hardware_concurrency()},
          {"memoryBytes", static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE)},
          {"system", std::string(system.sysname) + " " + system.release},
          {"compiler", __VERSION__},
          {"built", __DATE__}};
}

}  // namespace gpu_bench
