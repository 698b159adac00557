// A page of checks for native tests: no framework, so that they build wherever the core does.
//   TEST("name") { CHECK(x == y); CHECK_NEAR(a, b, 1e-4); CHECK_THROWS("CODE", "part of the message", f()); }
//   int main(int c, char** v) { return check::run(c, v); }   // arguments: parts of test names to run; --list
//   With SDAR_TEST_STOP set, the process ends at the first failed check.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "util/error.h"

namespace check {

struct Case {
  std::string name;
  std::function<void()> body;
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
inline int& failures() {
  static int n = 0;
  return n;
}
/// Thrown by a case that cannot run here.
struct Skip {
  std::string reason;
};
struct Register {
  Register(const char* name, std::function<void()> body) { cases().push_back({name, std::move(body)}); }
};
inline void fail(const char* file, int line, const std::string& what) {
  if (++failures() <= 50) std::printf("#   %s:%d: %s\n", file, line, what.c_str());
  if (std::getenv("SDAR_TEST_STOP")) {
    std::fflush(stdout);
    std::_Exit(1);
  }
}
/// Prints TAP, so that the JavaScript test runner can read each case.
inline int run(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const auto& test : cases()) std::printf("%s\n", test.name.c_str());
    return 0;
  }
  int number = 0, failed = 0;
  std::printf("TAP version 14\n");
  for (auto& test : cases()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; i++) wanted |= test.name.find(argv[i]) != std::string::npos;
    if (!wanted) continue;
    const int before = failures();
    std::string skipped;
    try {
      test.body();
    } catch (const Skip& skip) {
      skipped = " # SKIP " + skip.reason;
    } catch (const std::exception& e) {
      fail(test.name.c_str(), 0, std::string("uncaught: ") + e.what());
    }
    const bool ok = failures() == before;
    failed += !ok;
    std::printf("%s %d - %s%s\n", ok ? "ok" : "not ok", ++number, test.name.c_str(), skipped.c_str());
    std::fflush(stdout);
  }
  std::printf("1..%d\n", number);
  return failed ? 1 : 0;
}

}  // namespace check

#define CHECK_JOIN2(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN2(a, b)
#define TEST(name)                                                                           \
  static void CHECK_JOIN(test_, __LINE__)();                                                 \
  static check::Register CHECK_JOIN(register_, __LINE__)(name, CHECK_JOIN(test_, __LINE__)); \
  static void CHECK_JOIN(test_, __LINE__)()
#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) check::fail(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_NEAR(a, b, tolerance)                                                      \
  do {                                                                                   \
    const double left_ = (a), right_ = (b);                                              \
    if (!(std::abs(left_ - right_) <= (tolerance))) {                                    \
      std::ostringstream s_;                                                             \
      s_ << #a " = " << left_ << ", " #b " = " << right_ << ", allowed " << (tolerance); \
      check::fail(__FILE__, __LINE__, s_.str());                                         \
    }                                                                                    \
  } while (0)
#define CHECK_THROWS(expected_code, part, expression)                                                           \
  do {                                                                                                          \
    try {                                                                                                       \
      expression;                                                                                               \
      check::fail(__FILE__, __LINE__, #expression " did not throw");                                            \
    } catch (const sdar::Error& e_) {                                                                           \
      if (e_.code() != (expected_code)) check::fail(__FILE__, __LINE__, "code " + e_.code());                   \
      if (!std::strstr(e_.what(), part)) check::fail(__FILE__, __LINE__, std::string("message: ") + e_.what()); \
    }                                                                                                           \
  } while (0)
