#include "options.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "bench/shapes.h"
#include "util/error.h"

namespace gpu_bench {

using sdar::Error;
using sdar::WeightFormat;

const char kUsage[] = R"(sdar-gpu-bench [options]               lists are separated by commas
  --device cuda:0                   cuda:N, or cpu: the engine's section alone
  --out gpu-bench                   folder for results.json, report.md and throughput.svg
  --sections oracle,limits,kernels,engine
  --shape sdar-4b,sdar-1.7b         shapes with random weights; tiny is for trying this program out
  --batch 1,8,32,128                requests at a time
  --block 4,8,16,32                 positions denoised together
  --tokens-per-forward 2,1,4        tokens filled in each forward; must divide the block, else left out there
  --weights bf16                    bf16, int8, int4: the engine's; f32 too on the cpu
  --kernel-weights bf16,int8,int4   formats that products are measured in
  --prompt 128                      tokens of each prompt
  --answer 256                      tokens of an answer, on average
  --seconds 1.5                     for each measurement of the engine
  --minutes 8                       for everything; what did not fit is listed
  --models FILE                     only write the shapes as the CUDA backend packs them, as JSON
)";

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> items;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) items.push_back(item);
  return items;
}

[[noreturn]] void refuse(const std::string& option, const std::string& value, const std::string& allowed) {
  throw Error(sdar::code::kInvalidOption, option + " is \"" + value + "\"; allowed: " + allowed);
}

std::vector<std::string> names(const std::string& option, const std::string& value,
                               const std::vector<std::string>& allowed) {
  std::string all;
  for (const std::string& name : allowed) all += (all.empty() ? "" : ", ") + name;
  const std::vector<std::string> items = split(value);
  if (items.empty()) refuse(option, value, all);
  for (const std::string& item : items)
    if (std::find(allowed.begin(), allowed.end(), item) == allowed.end()) refuse(option, item, all);
  return items;
}

double number(const std::string& option, const std::string& value, double least, double most, bool whole) {
  char* end = nullptr;
  const double n = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != 0 || !(n >= least && n <= most) || (whole && n != std::floor(n))) {
    std::ostringstream range;
    range << (whole ? "whole numbers from " : "numbers from ") << least << " to " << most;
    refuse(option, value, range.str());
  }
  return n;
}

std::vector<int32_t> numbers(const std::string& option, const std::string& value, int32_t most) {
  std::vector<int32_t> list;
  for (const std::string& item : split(value))
    list.push_back(static_cast<int32_t>(number(option, item, 1, most, true)));
  if (list.empty()) refuse(option, value, "one number or more");
  return list;
}

WeightFormat format_of(const std::string& name) {
  for (WeightFormat f : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8})
    if (name == sdar::name_of(f)) return f;
  return WeightFormat::int4;
}

}  // namespace

bool Options::wants(const std::string& section) const {
  return std::find(sections.begin(), sections.end(), section) != sections.end();
}

int Options::device_index() const { return std::atoi(device.c_str() + std::string("cuda:").size()); }

Options parse_options(const std::vector<std::string>& arguments) {
  Options o;
  std::vector<std::string> shapes = sdar::shape_names();
  shapes.push_back("tiny");
  for (size_t i = 0; i < arguments.size(); i++) {
    const std::string& option = arguments[i];
    if (option == "--help" || option == "-h") {
      o.help = true;
      continue;
    }
    if (i + 1 == arguments.size()) throw Error(sdar::code::kInvalidOption, option + " has no value; see --help");
    const std::string& value = arguments[++i];
    if (option == "--device") {
      if (value != "cpu" && value != "cuda") {
        if (value.rfind("cuda:", 0) != 0) refuse(option, value, "cpu, cuda, cuda:N");
        number(option, value.substr(5), 0, 63, true);
      }
      o.device = value == "cuda" ? "cuda:0" : value;
    } else if (option == "--out") {
      o.out = value;
    } else if (option == "--sections") {
      o.sections = names(option, value, {"oracle", "limits", "kernels", "engine"});
    } else if (option == "--shape") {
      o.shapes = names(option, value, shapes);
    } else if (option == "--batch") {
      o.batches = numbers(option, value, 1024);
    } else if (option == "--block") {
      o.blocks = numbers(option, value, 64);
    } else if (option == "--tokens-per-forward") {
      o.rates = numbers(option, value, 64);
    } else if (option == "--weights") {
      o.weights = format_of(names(option, value, {"f32", "bf16", "int8", "int4"})[0]);
    } else if (option == "--kernel-weights") {
      o.kernel_formats.clear();
      for (const std::string& name : names(option, value, {"bf16", "int8", "int4"}))
        o.kernel_formats.push_back(format_of(name));
    } else if (option == "--prompt") {
      o.prompt = static_cast<int32_t>(number(option, value, 1, 16384, true));
    } else if (option == "--answer") {
      o.answer = static_cast<int32_t>(number(option, value, 1, 8192, true));
    } else if (option == "--seconds") {
      o.seconds = number(option, value, 0.01, 60, false);
    } else if (option == "--minutes") {
      o.minutes = number(option, value, 0.05, 600, false);
    } else if (option == "--models") {
      o.models = value;
    } else {
      throw Error(sdar::code::kInvalidOption, option + " is not an option; see --help");
    }
  }
  return o;
}

}  // namespace gpu_bench
