#include "bench.h"

#include <filesystem>
#include <fstream>
#include <iostream>

#include "device.h"
#include "models.h"
#include "plot.h"
#include "report.h"
#include "sections.h"
#include "util/error.h"

namespace gpu_bench {

using sdar::Error;
using Json = nlohmann::ordered_json;

namespace {

// Shares of the time that is left when a section begins.
constexpr double kOracleShare = 0.25, kKernelShare = 0.3;

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) throw Error(sdar::code::kFileUnwritable, path.string() + " could not be written");
}

Json settings(const Options& o) {
  Json formats = Json::array();
  for (sdar::WeightFormat f : o.kernel_formats) formats.push_back(sdar::name_of(f));
  return {{"device", o.device},
          {"sections", o.sections},
          {"shapes", o.shapes},
          {"batches", o.batches},
          {"blocks", o.blocks},
          {"tokensPerForward", o.rates},
          {"weights", sdar::name_of(o.weights)},
          {"kernelWeights", formats},
          {"prompt", o.prompt},
          {"answer", o.answer},
          {"seconds", o.seconds},
          {"minutes", o.minutes}};
}

/// Runs one section; a section that cannot run is listed among what was left out.
template <class F>
void section(const Options& o, const char* name, double share, Budget& budget, Json& results, const F& body) {
  if (!o.wants(name)) return;
  budget.begin_part(share);
  const double began = budget.spent();
  std::printf("# == %s\n", name);
  std::fflush(stdout);
  try {
    const Range range(name);
    results[name] = body();
  } catch (const Error& e) {
    budget.skipped.push_back(std::string(name) + ": " + e.what());
  }
  results["seconds"][name] = budget.spent() - began;
}

bool failed(const Json& results) {
  if (results.contains("oracle") && results["oracle"]["failed"] != 0) return true;
  if (!results.contains("engine")) return false;
  for (const char* list : {"closed", "switched", "poisson"})
    for (const Json& r : results["engine"][list])
      if (r.contains("error")) return true;
  return false;
}

int measure(const Options& o) {
  Budget budget(o.minutes);
  Json results{{"settings", settings(o)}, {"host", describe_host()}, {"seconds", Json::object()}};
  std::filesystem::create_directories(o.out);
  if (!o.on_cpu()) {
    results["card"] = open_card(o);
    results["cardState"] = card_state();
    results["nvtx"] = has_ranges();
    section(o, "oracle", kOracleShare, budget, results, [&] { return oracle_section(o, budget); });
    section(o, "limits", 1, budget, results, [&] { return measure_limits(); });
    if (results.contains("limits"))
      section(o, "kernels", kKernelShare, budget, results,
              [&] { return measure_kernels(o, results["limits"], budget); });
  }
  section(o, "engine", 1, budget, results, [&] { return engine_section(o, budget); });
  results["published"] = published_figures();
  results["skipped"] = budget.skipped;
  results["seconds"]["all"] = budget.spent();

  const std::filesystem::path folder(o.out);
  const std::string report = markdown(results);
  write(folder / "results.json", results.dump(1) + "\n");
  write(folder / "report.md", report);
  write(folder / "throughput.svg", draw_charts(throughput_charts(results)));
  std::printf("%s\n%s: results.json, report.md, throughput.svg\n", report.c_str(), o.out.c_str());
  return failed(results) ? 1 : 0;
}

}  // namespace

int run(const std::vector<std::string>& arguments) {
  try {
    const Options o = parse_options(arguments);
    if (o.help) {
      std::printf("%s", kUsage);
    } else if (!o.models.empty()) {
      write(o.models, describe_models().dump(1) + "\n");
    } else {
      return measure(o);
    }
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "sdar-gpu-bench: %s\n", e.what());
  } catch (const std::filesystem::filesystem_error& e) {
    std::fprintf(stderr, "sdar-gpu-bench: --out: %s\n", e.what());
  }
  return 2;
}

}  // namespace gpu_bench
