// What the programs of bench/native share: options by name, and times taken in turns with the machine's own limits.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "backend/cpu/cpu.h"
#include "bench/limits.h"
#include "util/machine.h"

namespace sdar {

/// Where the value of each option goes, by its name ("--threads").
using Options = std::map<std::string, std::variant<std::string*, int*, int64_t*, double*>>;

/// Ends the process with status 2 where an option is not known, has no value, or has one that is no number.
inline void parse(int argc, char** argv, const Options& options) {
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    const auto option = options.find(name);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    const bool is_text = option != options.end() && std::holds_alternative<std::string*>(option->second);
    if (option == options.end() || value.empty() || (!is_text && *end)) {
      std::fprintf(stderr, "%s %s: unknown option or value; options:", name.c_str(), value.c_str());
      for (const auto& [known, to] : options) std::fprintf(stderr, " %s", known.c_str());
      std::fprintf(stderr, "\n");
      std::exit(2);
    }
    if (is_text) {
      *std::get<std::string*>(option->second) = value;
    } else if (auto* const* to = std::get_if<int*>(&option->second)) {
      **to = static_cast<int>(number);
    } else if (auto* const* wide = std::get_if<int64_t*>(&option->second)) {
      **wide = static_cast<int64_t>(number);
    } else {
      *std::get<double*>(option->second) = number;
    }
  }
}

/// Empty and 0 mean the best instruction set and all usable cores.
inline void choose_machine(std::string& isa, int& threads) {
  isa = cpu::choose_isa(isa);
  if (threads <= 0) threads = usable_cores();
}

inline std::vector<std::string> list(const std::string& text) {
  std::vector<std::string> items;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) items.push_back(item);
  return items;
}

struct Series {
  std::vector<double> values;
  double median() const {
    std::vector<double> x = values;
    std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
    return x[x.size() / 2];
  }
  double least() const { return *std::min_element(values.begin(), values.end()); }
  double most() const { return *std::max_element(values.begin(), values.end()); }
};

struct Times {
  Series seconds;     ///< of one call of the work
  Series bandwidths;  ///< bytes per second
  Series rates;       ///< operations per second
};

/// Calls `work` for `seconds`, at least five times, `prepare` before and the limits after each call; `format` is its
/// operands'.
template <class Work, class Prepare>
Times measure_beside(LimitProbe& limits, WeightFormat format, double seconds, Work work, Prepare prepare) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
  Times times;
  const auto begin = Clock::now();
  while (times.seconds.values.size() < 5 || since(begin) < seconds) {
    prepare();
    const auto start = Clock::now();
    work();
    times.seconds.values.push_back(since(start));
    times.bandwidths.values.push_back(limits.read_bandwidth());
    times.rates.values.push_back(limits.multiply_rate(format));
  }
  return times;
}
template <class Work>
Times measure_beside(LimitProbe& limits, WeightFormat format, double seconds, Work work) {
  return measure_beside(limits, format, seconds, work, [] {});
}

}  // namespace sdar
