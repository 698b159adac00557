// What limits, best ids and penalties cost in the lm_head, for each row, beside the row itself: a narrow model with the
// vocabulary of a large one, so that the product with the weights hides nothing.
//   lm_head_bench [--isa NAME] [--threads 1] [--vocabulary 151936] [--hidden 64] [--rows 16] [--seconds 1]
// Prints JSON; times are the least of a row, `more_us` and `ratio` beside plain rows taken in turns.
#include <cstdio>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backend/host_step.h"
#include "measure.h"
#include "random_weight.h"

using namespace sdar;

namespace {

struct Settings {
  std::string isa;
  int threads = 1, rows = 16;
  int64_t vocabulary = 151936, hidden = 64;
  double seconds = 1;
};

struct Kind {
  const char* name;
  double allowed;  ///< share of ids; 1: no mask
  int candidates, top, penalised, suppressed;
};
constexpr Kind kKinds[] = {{"plain", 1, 0, 0, 0, 0},
                           {"32 candidates, no mask", 1, 32, 0, 0, 0},
                           {"32 candidates of half the ids", 0.5, 32, 0, 0, 0},
                           {"32 candidates of 1 % of the ids", 0.01, 32, 0, 0, 0},
                           {"32 candidates of 40 ids", 40.0 / 151936, 32, 0, 0, 0},
                           {"half the ids allowed, the best alone", 0.5, 0, 0, 0, 0},
                           {"top 20", 1, 0, 20, 0, 0},
                           {"1000 penalised ids", 1, 0, 0, 1000, 0},
                           {"1000 suppressed ids", 1, 0, 0, 0, 1000}};

/// Rows of one kind, and what they point to.
struct Rows {
  std::vector<uint64_t> masks;
  std::vector<PenalisedToken> penalised;
  std::vector<int32_t> suppressed;
  std::vector<RankedToken> candidates, top;
  std::vector<SampledRow> sampled;
  std::vector<SampledToken> tokens;

  Rows(const Settings& s, const Kind& kind, float temperature) {
    std::mt19937 random(3);
    const auto words = static_cast<size_t>((s.vocabulary + 63) / 64), rows = static_cast<size_t>(s.rows);
    const auto share = static_cast<uint32_t>(kind.allowed * 4294967295.0);
    masks.resize(rows * words);
    for (size_t i = 0; i < masks.size() * 64; i++) masks[i / 64] |= uint64_t{random() < share} << i % 64;
    for (int i = 0; i < kind.penalised; i++)
      penalised.push_back({.id = static_cast<int32_t>(i * s.vocabulary / kind.penalised), .less = 0.1f});
    for (int i = 0; i < kind.suppressed; i++) suppressed.push_back(static_cast<int32_t>(random() % s.vocabulary));
    const auto many = static_cast<size_t>(kind.candidates), best = static_cast<size_t>(kind.top);
    candidates.resize(rows * many);
    top.resize(rows * best);
    sampled.resize(rows);
    tokens.resize(rows);
    for (size_t i = 0; i < rows; i++) {
      SampledRow& r = sampled[i];
      r.row = static_cast<int32_t>(i), r.temperature = temperature, r.uniform = 0.5;
      if (kind.allowed < 1) r.allowed = &masks[i * words];
      r.candidates = std::span(candidates).subspan(i * many, many);
      r.top = std::span(top).subspan(i * best, best);
      r.penalised = penalised, r.repetition = 1.1f, r.suppressed = suppressed;
    }
  }
  double seconds(HostBackend& backend, const LmHeadArgs& args) {
    const auto start = std::chrono::steady_clock::now();
    backend.begin_step({.sampled = sampled, .tokens = tokens});
    backend.lm_head(args);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
};

/// Least microseconds for a row, of this kind and of plain ones, taken in turns.
std::pair<double, double> measure(const Settings& s, HostBackend& backend, const LmHeadArgs& args, const Kind& kind,
                                  float temperature) {
  Rows rows(s, kind, temperature), plain(s, kKinds[0], temperature);
  Series of_kind, of_plain;
  for (double spent = 0; of_kind.values.size() < 5 || spent < s.seconds;) {
    of_plain.values.push_back(plain.seconds(backend, args));
    of_kind.values.push_back(rows.seconds(backend, args));
    spent += of_plain.values.back() + of_kind.values.back();
  }
  return {of_kind.least() / s.rows * 1e6, of_plain.least() / s.rows * 1e6};
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  parse(argc, argv,
        {{"--isa", &s.isa},
         {"--threads", &s.threads},
         {"--vocabulary", &s.vocabulary},
         {"--hidden", &s.hidden},
         {"--rows", &s.rows},
         {"--seconds", &s.seconds}});
  s.isa = cpu::choose_isa(s.isa);
  const auto backend = cpu::make_backend({.threads = s.threads, .isa = s.isa});
  ModelShape shape{.layers = 1, .hidden = static_cast<int32_t>(s.hidden), .heads = 1, .kv_heads = 1, .head_dim = 64};
  shape.context = 64;
  backend->configure_ops(shape, {1, KvFormat::f32}, s.rows);
  const PackedWeight norm(*backend, {WeightKind::vector, WeightFormat::f32, 1, s.hidden},
                          std::vector<float>(static_cast<size_t>(s.hidden), 1.0f));
  const PackedWeight weight(*backend, {WeightKind::linear, WeightFormat::bf16, s.vocabulary, s.hidden},
                            random_values(s.vocabulary * s.hidden, 1));
  const std::vector<float> x = random_values(s.rows * s.hidden, 2);
  const LmHeadArgs args{.x = x.data(), .norm = norm.get(), .weight = weight.get()};
  std::printf("{\"isa\": \"%s\", \"threads\": %d, \"vocabulary\": %lld, \"hidden\": %lld, \"rows\": %d, \"results\": [",
              s.isa.c_str(), s.threads, static_cast<long long>(s.vocabulary), static_cast<long long>(s.hidden), s.rows);
  const char* separator = "";
  for (const float temperature : {0.0f, 0.8f}) {
    for (const Kind& kind : kKinds) {
      const auto [us, plain] = measure(s, *backend, args, kind, temperature);
      std::printf("%s\n  {\"what\": \"%s\", \"temperature\": %.1f, \"us\": %.1f, \"more_us\": %.1f, \"ratio\": %.2f}",
                  separator, kind.name, static_cast<double>(temperature), us, us - plain, us / plain);
      std::fflush(stdout);
      separator = ",";
    }
  }
  std::printf("\n]}\n");
  return 0;
}
