#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "bench/shapes.h"
#include "device.h"
#include "load.h"
#include "sections.h"
#include "util/error.h"

namespace gpu_bench {

using namespace sdar;
using Json = nlohmann::ordered_json;

namespace {

constexpr double kOffShare = 0.75;       // of a shape's time, for all switches off
constexpr double kSettleSeconds = 4;     // at most, until all requests have begun to answer
constexpr double kPoissonSettle = 1.5;   // of a Poisson load
constexpr double kPoissonFactor = 4;     // of a measurement's seconds, at least
constexpr double kPoissonArrivals = 10;  // expected, at least
constexpr double kLoads[] = {0.5, 0.8};  // of the closed loop's rate
constexpr int32_t kCacheReserve = 64;    // tokens per request beside prompt and answer: blocks that are in flight
constexpr int32_t kMaxRows = 8192;       // of a step

struct Case {
  int32_t block, batch, rate;
};

/// What is off by default until a device has shown it right and faster; the backend reads these when it is made.
struct Switches {
  const char* name;
  bool warpgroup_mma, pdl;
};
constexpr Switches kOff{"off", false, false};
constexpr Switches kOthers[] = {{"warpgroup MMA", true, false}, {"PDL", false, true}, {"both", true, true}};

void set(const Switches& s) {
  setenv("SDAR_CUDA_WARPGROUP_MMA", s.warpgroup_mma ? "1" : "0", 1);
  setenv("SDAR_CUDA_PDL", s.pdl ? "1" : "0", 1);
}

/// The published comparison's cases first, then by rate, so that little time is spent on what matters most.
std::vector<Case> plan(const Options& o) {
  std::vector<Case> cases;
  for (int32_t rate : o.rates)
    for (int32_t block : o.blocks)
      for (int32_t batch : o.batches)
        if (block % rate == 0) cases.push_back({block, batch, rate});
  const int32_t most = *std::max_element(o.batches.begin(), o.batches.end()), first = o.blocks[0];
  std::stable_partition(cases.begin(), cases.end(), [&](const Case& c) { return c.batch == most && c.block == first; });
  return cases;
}

Json to_json(const Percentiles& p) { return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"count", p.count}}; }

Json to_json(const LoadResult& r) {
  Json j{{"tokensPerSecond", r.tokens_per_second},
         {"seconds", r.seconds},
         {"steps", r.steps},
         {"stepMs", r.step_ms},
         {"rowsPerStep", r.rows},
         {"sequencesPerStep", r.sequences},
         {"tokensPerForward", r.tokens_per_forward},
         {"promptTokensPerSecond", r.prompt_tokens},
         {"completed", r.completed},
         {"firstTokenMs", to_json(r.first_token)},
         {"betweenDeliveriesMs", to_json(r.between)},
         {"perTokenMs", to_json(r.per_token)}};
  if (!r.error.empty()) j["error"] = r.error;
  return j;
}

ModelConfig config_of(const std::string& shape) {
  if (shape == "tiny") return shape_config("sdar-nano", 2);
  return shape_config(shape);
}

EngineOptions engine_options(const Options& o, int32_t context) {
  const int32_t batch = *std::max_element(o.batches.begin(), o.batches.end());
  const int32_t block = *std::max_element(o.blocks.begin(), o.blocks.end());
  EngineOptions e;
  e.device = o.device;
  e.weights = o.weights;
  e.max_concurrent = batch;
  // Twice where blocks leave parts of pages empty.
  const int64_t each = std::min<int64_t>(context, o.prompt + 2 * o.answer + kCacheReserve);
  e.kv_tokens = batch * each * (kPageSlots % block == 0 ? 1 : 2) + kPageSlots;
  e.max_rows = std::clamp(2 * block * batch, 2048, kMaxRows);
  return e;
}

class ShapeRun {
 public:
  ShapeRun(const Options& options, const std::string& shape, Budget& budget, Json& out)
      : o_(options), shape_(shape), budget_(budget), out_(out) {}

  /// Everything with the switches off, then the cases of the first block again with each on.
  void run() {
    if (o_.on_cpu()) return run(kOff);
    const double end = budget_.spent() + budget_.part_left();
    budget_.begin_part(kOffShare * budget_.part_left() / budget_.left());
    run(kOff);
    budget_.begin_part((end - budget_.spent()) / budget_.left());
    for (const Switches& s : kOthers) run(s);
  }

 private:
  void run(const Switches& switches) {
    set(switches);
    const bool all = &switches == &kOff;
    const ModelConfig config = config_of(shape_);
    const EngineOptions engine = engine_options(o_, config.shape.context);
    const double before = budget_.spent();
    const Json memory_before = card_memory();
    auto model = random_model(config, engine, 1, {});
    const Json description{{"shape", shape_},
                           {"weights", name_of(o_.weights)},
                           {"parameters", model->weights.parameters},
                           {"weightBytes", model->weights.bytes},
                           {"pages", model->cache.pages},
                           {"pageBytes", model->page_bytes},
                           {"maxRows", engine.max_rows},
                           {"warpgroupMma", switches.warpgroup_mma},
                           {"pdl", switches.pdl},
                           {"device", model->backend->device()},
                           {"isa", model->backend->isa()}};
    LoadClient client(std::move(model), engine);
    Json described = description;
    described["loadSeconds"] = budget_.spent() - before;
    described["cardMemoryBefore"] = memory_before;
    described["cardMemory"] = card_memory();
    out_["models"].push_back(described);
    std::printf("# %s loaded in %.1f s, switches %s\n", shape_.c_str(), budget_.spent() - before, switches.name);

    Json reference;  // what Poisson loads are shares of
    for (const Case& c : plan(o_)) {
      if (!all && (c.block != o_.blocks[0] || c.rate != o_.rates[0])) continue;
      const std::string what = shape_ + ", block " + std::to_string(c.block) + ", batch " + std::to_string(c.batch) +
                               ", " + std::to_string(c.rate) + " per forward" +
                               (all ? "" : std::string(", with ") + switches.name);
      if (!budget_.allows(o_.seconds, what)) continue;
      Json result = closed(client, c, what);
      if (!all) {
        result["switches"] = switches.name;
        out_["switched"].push_back(result);
        continue;
      }
      out_["closed"].push_back(result);
      if (reference.is_null() && !result.contains("error")) reference = result;
    }
    for (double load : kLoads)
      if (!reference.is_null()) poisson(client, reference, load);
  }

  RequestShape request(int32_t block, int32_t rate) const {
    return {.prompt = o_.prompt, .answer = o_.answer, .block = block, .tokens_per_forward = rate};
  }

  Json closed(LoadClient& client, const Case& c, const std::string& what) {
    const Range range(what);
    const LoadResult r = client.closed_loop(c.batch, request(c.block, c.rate), kSettleSeconds, o_.seconds);
    Json j{{"shape", shape_}, {"batch", c.batch}, {"block", c.block}, {"forced", c.rate}};
    j.update(to_json(r));
    j["card"] = card_state();
    std::printf("# %s: %.0f tokens/s, step %.2f ms%s%s\n", what.c_str(), r.tokens_per_second, r.step_ms,
                r.error.empty() ? "" : ", ", r.error.c_str());
    std::fflush(stdout);
    return j;
  }

  void poisson(LoadClient& client, const Json& reference, double load) {
    const int32_t block = reference["block"], rate = reference["forced"];
    const double requests = load * reference["tokensPerSecond"].get<double>() / o_.answer;
    const double window = std::max(kPoissonFactor * o_.seconds, kPoissonArrivals / requests);
    const std::string what =
        shape_ + ", Poisson arrivals at " + std::to_string(std::lround(100 * load)) + " % of the closed loop";
    if (!budget_.allows(kPoissonSettle + window, what)) return;
    const Range range(what);
    const LoadResult r = client.poisson(requests, request(block, rate), kPoissonSettle, window);
    Json j{{"shape", shape_}, {"block", block}, {"forced", rate}, {"load", load}, {"requestsPerSecond", requests}};
    j.update(to_json(r));
    j["card"] = card_state();
    std::printf("# %s: %.0f tokens/s, first token p50 %.0f ms, p99 %.0f ms\n", what.c_str(), r.tokens_per_second,
                r.first_token.p50, r.first_token.p99);
    std::fflush(stdout);
    out_["poisson"].push_back(j);
  }

  const Options& o_;
  const std::string& shape_;
  Budget& budget_;
  Json& out_;
};

}  // namespace

Json engine_section(const Options& options, Budget& budget) {
  Json out{
      {"models", Json::array()}, {"closed", Json::array()}, {"switched", Json::array()}, {"poisson", Json::array()}};
  for (size_t i = 0; i < options.shapes.size(); i++) {
    budget.begin_part(1.0 / static_cast<double>(options.shapes.size() - i));
    try {
      ShapeRun(options, options.shapes[i], budget, out).run();
    } catch (const Error& e) {
      budget.skipped.push_back(options.shapes[i] + ": " + e.code() + ": " + e.what());
    }
  }
  return out;
}

}  // namespace gpu_bench
