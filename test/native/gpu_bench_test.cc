// bench/gpu as far as it goes without a card: its options, the engine's section on the CPU, the files it writes, and
// the shapes that the roofline model reads.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "bench.h"
#include "check.h"
#include "load.h"
#include "models.h"
#include "options.h"
#include "plot.h"
#include "report.h"

using namespace gpu_bench;
using Json = nlohmann::ordered_json;

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Scratch {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("sdar-gpu-bench-" + std::to_string(::getpid()));
  ~Scratch() { std::filesystem::remove_all(path); }
};

/// run() without its words, which are not TAP.
int quietly(const std::vector<std::string>& arguments) {
  std::fflush(stdout);
  const int kept[2] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)}, nowhere = open("/dev/null", O_WRONLY);
  dup2(nowhere, STDOUT_FILENO), dup2(nowhere, STDERR_FILENO);
  const int status = run(arguments);
  std::fflush(stdout);
  dup2(kept[0], STDOUT_FILENO), dup2(kept[1], STDERR_FILENO);
  for (int fd : {kept[0], kept[1], nowhere}) close(fd);
  return status;
}

/// Every element is closed in order, attributes are quoted, and no text holds a bare < or &.
bool well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t i = 0; i < xml.size(); i++) {
    if (xml[i] == '&' && xml.find(';', i) > i + 6) return false;
    if (xml[i] != '<') continue;
    const size_t end = xml.find('>', i);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(i + 1, end - i - 1);
    if (tag.find('<') != std::string::npos || std::count(tag.begin(), tag.end(), '"') % 2 != 0) return false;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    i = end;
  }
  return open.empty();
}

}  // namespace

TEST("roofline/models.json is what the sources say") {
  const Json models = describe_models();
  const bool same = Json::parse(read("bench/gpu/roofline/models.json")) == models;
  if (!same) std::printf("#   write it again: sdar-gpu-bench --models bench/gpu/roofline/models.json\n");
  CHECK(same);
  // Of a dense model, all weights are its matrices and its norms, f32 in whole 64 bytes.
  for (const char* name : {"sdar-1.7b", "sdar-4b", "sdar-8b"}) {
    const Json& m = models[name];
    const int64_t layers = m["layers"], hidden = m["hidden"], dim = m["headDim"];
    for (const char* format : {"bf16", "int8", "int4"}) {
      int64_t bytes = layers * (2 * hidden + 2 * dim) * 4 + hidden * 4;
      for (const char* matrix : {"qkv", "o", "gateUp", "down"})
        bytes += layers * m["matrices"][matrix]["bytes"][format].get<int64_t>();
      bytes += (m["tied"] ? 1 : 2) * m["matrices"]["head"]["bytes"][format].get<int64_t>();
      CHECK(bytes == m["weightBytes"][format]);
    }
  }
}

TEST("options that cannot be name what is allowed") {
  const auto parse = [](std::vector<std::string> arguments) { return parse_options(arguments); };
  CHECK(parse({"--device", "cuda"}).device == "cuda:0" && parse({"--device", "cuda:3"}).device_index() == 3);
  CHECK((parse({"--block", "4,16"}).blocks == std::vector<int32_t>{4, 16}));
  CHECK_THROWS("INVALID_OPTION", "--device is \"gpu\"; allowed: cpu, cuda, cuda:N", parse({"--device", "gpu"}));
  CHECK_THROWS("INVALID_OPTION", "--device is \"x\"; allowed: whole numbers from 0", parse({"--device", "cuda:x"}));
  CHECK_THROWS("INVALID_OPTION", "allowed: sdar-nano, sdar-1.7b", parse({"--shape", "sdar-5b"}));
  CHECK_THROWS("INVALID_OPTION", "--block is \"0\"; allowed: whole numbers from 1 to 64", parse({"--block", "4,0"}));
  CHECK_THROWS("INVALID_OPTION", "--batch is \"\"", parse({"--batch", ""}));
  CHECK_THROWS("INVALID_OPTION", "--weights is \"fp8\"; allowed: f32, bf16", parse({"--weights", "fp8"}));
  CHECK_THROWS("INVALID_OPTION", "--minutes is \"2x\"", parse({"--minutes", "2x"}));
  CHECK_THROWS("INVALID_OPTION", "--speed is not an option", parse({"--speed", "1"}));
  CHECK_THROWS("INVALID_OPTION", "--out has no value", parse({"--out"}));
  CHECK(quietly({"--speed", "1"}) == 2);
}

TEST("percentiles by nearest rank") {
  std::vector<double> seconds;
  for (int i = 200; i > 0; i--) seconds.push_back(i / 1e3);
  const Percentiles p = percentiles(seconds);
  CHECK_NEAR(p.p50, 100, 1e-9);
  CHECK_NEAR(p.p90, 180, 1e-9);
  CHECK_NEAR(p.p99, 198, 1e-9);
  CHECK(percentiles({}).count == 0 && percentiles({0.5}).p99 == 500);
}

namespace {

/// Whether every load saw steps, and the random ones a request from its first delivery to its end.
bool saw_enough(const Json& results) {
  const auto all = [](const Json& loads, const auto& enough) {
    return std::all_of(loads.begin(), loads.end(), enough);
  };
  return all(results["engine"]["closed"], [](const Json& r) { return r["steps"] > 0; }) &&
         all(results["engine"]["poisson"], [](const Json& r) { return r["perTokenMs"]["count"] > 0; });
}

}  // namespace

TEST("the engine's section on the CPU: forced tokens per forward, percentiles, files") {
  const Scratch scratch;
  const std::string out = (scratch.path / "deep").string();
  Json results;
  // A machine that stands still for a moment may see nothing in so short a time; a longer one tells.
  for (const char* seconds : {"0.15", "0.6", "3"}) {
    CHECK(quietly({"--device", "cpu", "--shape", "tiny", "--batch", "1,3", "--block", "4,8", "--tokens-per-forward",
                   "2,8,1", "--prompt", "16", "--answer", "64", "--seconds", seconds, "--out", out}) == 0);
    results = Json::parse(read(out + "/results.json"));
    if (saw_enough(results)) break;
  }
  CHECK(results["skipped"].empty() && results["settings"]["device"] == "cpu" && results["host"]["cores"] >= 1);
  CHECK(!results.contains("card") && !results.contains("kernels"));
  const Json& model = results["engine"]["models"][0];
  CHECK(model["device"] == "cpu" && model["weights"] == "bf16" && model["weightBytes"] > 1000000);
  const Json& closed = results["engine"]["closed"];
  CHECK(closed.size() == 2 * (2 + 3));  // 8 do not divide a block of 4
  for (const Json& r : closed) {
    CHECK(!r.contains("error") && r["steps"] > 0 && r["tokensPerSecond"] > 0 && r["stepMs"] > 0);
    // Nothing but the strategy decides how many a forward fills.
    CHECK_NEAR(r["tokensPerForward"].get<double>(), r["forced"].get<double>(), 1e-9);
    CHECK(r["sequencesPerStep"] <= r["batch"]);
    // A block, and sometimes the one before, which is committed.
    CHECK(r["rowsPerStep"].get<double>() >= 0.5 * r["block"].get<double>());
    CHECK(r["card"].is_null());
  }
  CHECK(closed[0]["block"] == 4 && closed[0]["batch"] == 3);  // the published comparison's case comes first
  const Json& poisson = results["engine"]["poisson"];
  CHECK(poisson.size() == 2);
  for (const Json& r : poisson) {
    CHECK(r["completed"] > 0 && r["tokensPerSecond"] > 0);
    for (const char* of : {"firstTokenMs", "betweenDeliveriesMs", "perTokenMs"}) {
      CHECK(r[of]["count"] > 0 && r[of]["p50"] > 0);
      CHECK(r[of]["p50"] <= r[of]["p90"] && r[of]["p90"] <= r[of]["p99"]);
    }
  }
  const std::string report = read(out + "/report.md"), svg = read(out + "/throughput.svg");
  for (const char* part : {"| tiny | 2 | 4 |", "Poisson arrivals", "JetEngine", "SGLang", "accelerate launch"})
    CHECK(report.find(part) != std::string::npos);
  CHECK(well_formed(svg) && svg.find("tiny: 2 tokens per forward") != std::string::npos);
  CHECK(svg.find("block 8") != std::string::npos && svg.find("nan") == std::string::npos);
}

TEST("what finds no time is listed; a device that is not there is named") {
  const Scratch scratch;
  const std::string out = scratch.path.string();
  CHECK(quietly({"--device", "cpu", "--shape", "tiny", "--minutes", "0.05", "--seconds", "9", "--out", out}) == 0);
  const Json results = Json::parse(read(out + "/results.json"));
  CHECK(results["engine"]["closed"].empty() && results["skipped"].size() == 48);
  CHECK(results["skipped"][0].get<std::string>().find("tiny, block 4, batch 128") == 0);
  CHECK(read(out + "/report.md").find("## Left out") != std::string::npos);
  CHECK(well_formed(read(out + "/throughput.svg")));
  CHECK(quietly({"--out", out}) == 2);  // built without nvcc
  CHECK(quietly({"--device", "cpu", "--shape", "tiny", "--out", "/dev/null/x"}) == 2);
}

TEST("charts: markup in names is escaped, one point is a chart") {
  CHECK(well_formed(draw_charts({{"a < b & c", "x", "y", {{"s", {{1, 10}}, true}}}, {"t", "x", "y", {}}})));
  CHECK(well_formed(draw_charts({})));
  CHECK(!well_formed("<a><b></a></b>") && !well_formed("<a b=\"></a>") && !well_formed("<a>x & y</a>"));
}

TEST("run.sh starts an executable that was brought along, and refuses one that is not there") {
  if (std::getenv("SDAR_TEST_QUICK")) throw check::Skip{"sanitizers and emulation run the same code above"};
  const Scratch scratch;
  const std::string out = scratch.path.string(), script = "bash bench/gpu/run.sh";
  const auto shell = [](const std::string& command) { return std::system(command.c_str()); };
  CHECK(shell("SDAR_GPU_BENCH=" SDAR_GPU_BENCH " " + script +
              " --device cpu --shape tiny --batch 2 --block 4 --tokens-per-forward 2 --seconds 0.1 --out " + out +
              " > " + out + ".log") == 0);
  const Json results = Json::parse(read(out + "/results.json"));
  CHECK(results["engine"]["closed"].size() == 1 && results["settings"]["minutes"] > 7.5);
  CHECK(shell("SDAR_GPU_BENCH=/nowhere " + script + " 2> " + out + ".log") != 0);
  CHECK(read(out + ".log").find("SDAR_GPU_BENCH is \"/nowhere\"") != std::string::npos);
  std::filesystem::remove(out + ".log");
}

int main(int argc, char** argv) { return check::run(argc, argv); }
