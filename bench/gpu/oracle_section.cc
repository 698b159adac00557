#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "sections.h"
#include "util/error.h"

extern char** environ;

namespace gpu_bench {

using Json = nlohmann::ordered_json;

namespace {

struct Counts {
  int passed = 0, failed = 0, skipped = 0;
  bool planned = false;
  Json failures = Json::array();

  void take(const std::string& line) {
    const bool bad = line.rfind("not ok ", 0) == 0;
    if (bad || line.rfind("ok ", 0) == 0) {
      const bool skip = line.find(" # SKIP ") != std::string::npos;
      (bad ? failed : skip ? skipped : passed)++;
    }
    planned = planned || line.rfind("1..", 0) == 0;
    if (bad || line.rfind("#   ", 0) == 0) failures.push_back(line);
  }
};

}  // namespace

Json oracle_section(const Options& options, Budget& budget) {
  int ends[2];
  if (pipe(ends) != 0) throw sdar::Error(sdar::code::kInternal, "pipe failed");
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  char name[] = "/proc/self/exe", argument[] = "oracle";
  std::string device = options.device;
  char* arguments[] = {name, argument, device.data(), nullptr};
  pid_t child = 0;
  const int spawned = posix_spawn(&child, name, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (spawned != 0) throw sdar::Error(sdar::code::kInternal, "this executable could not be started again");

  const double began = budget.spent();
  Counts counts;
  std::string rest;
  bool late = false;
  for (char chunk[4096];;) {
    pollfd ready{ends[0], POLLIN, 0};
    if (budget.part_left() <= 0) {
      kill(child, SIGKILL);
      late = true;
      break;
    }
    if (poll(&ready, 1, 200) <= 0) continue;
    const ssize_t n = read(ends[0], chunk, sizeof chunk);
    if (n <= 0) break;
    rest.append(chunk, static_cast<size_t>(n));
    for (size_t end; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) {
      const std::string line = rest.substr(0, end);
      std::printf("%s\n", line.c_str());
      counts.take(line);
    }
    std::fflush(stdout);
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (late)
    budget.skipped.push_back("oracle tests after the first " + std::to_string(counts.passed) + ": no time left");
  if (!late && (!counts.planned || (status != 0 && counts.failed == 0))) {
    counts.failed++;
    counts.failures.push_back("the tests ended with status " + std::to_string(status) + " before they were through");
  }
  return {{"passed", counts.passed},
          {"failed", counts.failed},
          {"skipped", counts.skipped},
          {"seconds", budget.spent() - began},
          {"failures", counts.failures}};
}

}  // namespace gpu_bench
