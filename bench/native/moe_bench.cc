// Time of a layer's mixture of experts alone (SDAR-30B-A3B shape by default) for tokens that share few experts, as
// those of a trained model do: beside the time of reading the weights of the experts that some token chose.
//   moe_bench [--isa NAME] [--threads N] [--weights int8,int4] [--tokens 1,4,8,16,32,64] [--hidden 2048]
//             [--intermediate 768] [--experts 128] [--per-token 8] [--seconds 1]
// Prints JSON; times are medians. `read_ratio` is the time over reading those experts once, `multiply_share` the part of
// the multiply peak that is reached; `best_read_ratio` is the best run's over the best reading.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "measure.h"
#include "random_weight.h"

using namespace sdar;

namespace {

struct Settings {
  std::string isa, weights = "int8,int4", tokens = "1,4,8,16,32,64";
  int threads = 0, experts = 128, per_token = 8;
  int64_t hidden = 2048, intermediate = 768;
  double seconds = 1;
};

Settings settings_of(int argc, char** argv) {
  Settings s;
  parse(argc, argv,
        {{"--isa", &s.isa},
         {"--weights", &s.weights},
         {"--tokens", &s.tokens},
         {"--threads", &s.threads},
         {"--hidden", &s.hidden},
         {"--intermediate", &s.intermediate},
         {"--experts", &s.experts},
         {"--per-token", &s.per_token},
         {"--seconds", &s.seconds}});
  choose_machine(s.isa, s.threads);
  return s;
}

void measure(const Settings& s, WeightFormat format, LimitProbe& limits, bool& first) {
  const auto backend = cpu::make_backend({.threads = s.threads, .isa = s.isa});
  std::vector<std::unique_ptr<RandomWeight>> weights;
  std::vector<const Weight*> gate_up, down;
  size_t bytes = 0;  // of an expert
  WeightMemory memory;
  for (int e = 0; e < s.experts; e++) {
    for (const bool up : {true, false}) {
      weights.push_back(std::make_unique<RandomWeight>(*backend, memory, up ? WeightKind::gate_up : WeightKind::linear,
                                                       format, up ? 2 * s.intermediate : s.hidden,
                                                       up ? s.hidden : s.intermediate));
      (up ? gate_up : down).push_back(weights.back()->get());
      if (e == 0) bytes += weights.back()->bytes();
    }
  }
  const PackedWeight norm(*backend, {WeightKind::vector, WeightFormat::f32, 1, s.hidden},
                          std::vector<float>(static_cast<size_t>(s.hidden), 1.0f));
  const PackedWeight router(*backend, {WeightKind::linear, WeightFormat::f32, s.experts, s.hidden},
                            random_values(s.experts * s.hidden, 3));

  for (const std::string& tokens : list(s.tokens)) {
    const int m = std::atoi(tokens.c_str());
    uint32_t seed = 10;
    std::vector<float> x;
    int64_t read = 0, calls = 0;
    const int64_t before = backend->experts_read();
    // Other tokens each time, or the experts of the last would be in a cache.
    const Times t = measure_beside(
        limits, format, s.seconds,
        [&] {
          backend->moe({.x = x.data(),
                        .m = m,
                        .norm = norm.get(),
                        .router = router.get(),
                        .gate_up = gate_up,
                        .down = down,
                        .top_k = s.per_token,
                        .renormalise = true});
          calls++;
        },
        [&] { x = random_values(m * s.hidden, seed++); });
    read = backend->experts_read() - before;
    const double experts = static_cast<double>(read) / static_cast<double>(calls);
    const double time = t.seconds.median(), touched = experts * static_cast<double>(bytes);
    const double operations = 2.0 * m * s.per_token * s.hidden * 3.0 * static_cast<double>(s.intermediate);
    const double bandwidth = t.bandwidths.median(), rate = t.rates.median();
    std::printf(
        "%s\n  {\"weights\": \"%s\", \"tokens\": %d, \"experts\": %.1f, \"ms\": %.3f, \"gbps\": %.1f, "
        "\"limit_gbps\": %.1f, \"read_ratio\": %.2f, \"best_read_ratio\": %.2f, \"multiply_share\": %.2f}",
        first ? "" : ",", name_of(format), m, experts, time * 1e3, touched / time * 1e-9, bandwidth * 1e-9,
        time / (touched / bandwidth), t.seconds.least() / (touched / t.bandwidths.most()), operations / time / rate);
    std::fflush(stdout);
    first = false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Settings s = settings_of(argc, argv);
  const auto limits = make_limit_probe(s.threads, s.isa);
  std::printf("{\"isa\": \"%s\", \"threads\": %d, \"experts\": %d, \"per_token\": %d, \"results\": [", s.isa.c_str(),
              s.threads, s.experts, s.per_token);
  bool first = true;
  for (const std::string& name : list(s.weights)) {
    for (WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      if (name == name_of(format)) measure(s, format, *limits, first);
    }
  }
  std::printf("\n]}\n");
  return 0;
}
