// Time of a layer's matrix products alone (QKV, O, gate/up, down; SDAR-1.7B shape by default), weights streamed from
// memory, beside the machine's own limits measured in between.
//   matmul_bench [--isa NAME] [--threads N] [--weights f32,bf16,int8,int4] [--tokens 1,4,8,16,32,64,512]
//                [--hidden 2048] [--intermediate 6144] [--qkv 4096] [--layers 4] [--seconds 1]
// Prints JSON; times are medians of one layer. `read_ratio` is the time over reading the weights once, `multiply_share`
// the part of the multiply peak that is reached; both for the median and for the best run.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "measure.h"
#include "random_weight.h"

using namespace sdar;

namespace {

struct Settings {
  std::string isa, weights = "f32,bf16,int8,int4", tokens = "1,4,8,16,32,64,512";
  int threads = 0, layers = 4;
  int64_t hidden = 2048, intermediate = 6144, qkv = 4096;
  double seconds = 1;
};

Settings settings_of(int argc, char** argv) {
  Settings s;
  parse(argc, argv,
        {{"--isa", &s.isa},
         {"--weights", &s.weights},
         {"--tokens", &s.tokens},
         {"--threads", &s.threads},
         {"--layers", &s.layers},
         {"--hidden", &s.hidden},
         {"--intermediate", &s.intermediate},
         {"--qkv", &s.qkv},
         {"--seconds", &s.seconds}});
  choose_machine(s.isa, s.threads);
  return s;
}

struct Layer {
  RandomWeight qkv, o, gate_up, down;
  Layer(Backend& b, WeightMemory& m, const Settings& s, WeightFormat f)
      : qkv(b, m, WeightKind::linear, f, s.qkv, s.hidden),
        o(b, m, WeightKind::linear, f, s.hidden, s.hidden),
        gate_up(b, m, WeightKind::gate_up, f, 2 * s.intermediate, s.hidden),
        down(b, m, WeightKind::linear, f, s.hidden, s.intermediate) {}
  size_t bytes() const { return qkv.bytes() + o.bytes() + gate_up.bytes() + down.bytes(); }
};

void measure(const Settings& s, WeightFormat format, LimitProbe& limits, bool& first) {
  const auto backend = cpu::make_backend({.threads = s.threads, .isa = s.isa});
  std::vector<Layer> layers;
  WeightMemory memory;
  for (int i = 0; i < s.layers; i++) layers.emplace_back(*backend, memory, s, format);
  const PackedWeight norm(*backend, {WeightKind::vector, WeightFormat::f32, 1, s.hidden},
                          std::vector<float>(static_cast<size_t>(s.hidden), 1.0f));

  for (const std::string& tokens : list(s.tokens)) {
    const int m = std::atoi(tokens.c_str());
    std::vector<float> x(static_cast<size_t>(m * s.hidden)),
        wide(static_cast<size_t>(m * std::max(s.qkv, s.intermediate)));
    std::mt19937 random(2);
    for (float& v : x) v = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
    const Times t = measure_beside(limits, format, s.seconds, [&] {
      for (const Layer& layer : layers) {
        backend->norm_linear({x.data(), m, norm.get(), layer.qkv.get(), wide.data()});
        backend->linear_add({.in = wide.data(), .m = m, .weight = layer.o.get(), .x = x.data()});
        backend->norm_linear({x.data(), m, norm.get(), layer.gate_up.get(), wide.data()});
        backend->linear_add({.in = wide.data(), .m = m, .weight = layer.down.get(), .x = x.data()});
      }
    });
    const double bytes = static_cast<double>(layers[0].bytes());
    const double operations = 2.0 * m * s.hidden * (s.qkv + s.hidden + 3.0 * s.intermediate);
    const double time = t.seconds.median() / s.layers, best = t.seconds.least() / s.layers;
    const double bandwidth = t.bandwidths.median(), rate = t.rates.median();
    std::printf(
        "%s\n  {\"weights\": \"%s\", \"tokens\": %d, \"ms\": %.3f, \"best_ms\": %.3f, \"gbps\": %.1f, \"gops\": %.0f, "
        "\"limit_gbps\": %.1f, \"limit_gops\": %.0f, \"read_ratio\": %.2f, \"best_read_ratio\": %.2f, "
        "\"multiply_share\": %.2f, \"best_multiply_share\": %.2f}",
        first ? "" : ",", name_of(format), m, time * 1e3, best * 1e3, bytes / time * 1e-9, operations / time * 1e-9,
        bandwidth * 1e-9, rate * 1e-9, time / (bytes / bandwidth), best / (bytes / t.bandwidths.most()),
        operations / time / rate, operations / best / t.rates.most());
    std::fflush(stdout);
    first = false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Settings s = settings_of(argc, argv);
  const auto limits = make_limit_probe(s.threads, s.isa);
  std::printf(
      "{\"isa\": \"%s\", \"threads\": %d, \"hidden\": %lld, \"intermediate\": %lld, \"qkv\": %lld, \"results\": [",
      s.isa.c_str(), s.threads, static_cast<long long>(s.hidden), static_cast<long long>(s.intermediate),
      static_cast<long long>(s.qkv));
  bool first = true;
  for (const std::string& name : list(s.weights)) {
    for (WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      if (name == name_of(format)) measure(s, format, *limits, first);
    }
  }
  std::printf("\n]}\n");
  return 0;
}
