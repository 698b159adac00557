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

#include "backend/cpu/buffer.h"
#include "measure.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

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

/// A weight whose panels all hold the same random numbers.
class RandomWeight {
 public:
  RandomWeight(Backend& backend, WeightKind kind, WeightFormat format, int64_t rows, int64_t cols) {
    const WeightSpec spec{kind, format, rows, cols}, one{WeightKind::linear, format, 32, cols};
    std::vector<float> values(static_cast<size_t>(32 * cols));
    std::mt19937 random(1);
    for (float& v : values) v = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
    const SourceTensor part{reinterpret_cast<const std::byte*>(values.data()), DType::f32, 32, cols};
    std::vector<std::byte> panel(backend.packed_bytes(one));
    backend.pack(one, {&part, 1}, 0, 1, panel.data());
    bytes_ = backend.packed_bytes(spec);
    std::byte* data = memory_.reserve(bytes_);
#ifdef __linux__
    constexpr uintptr_t kHuge = 2 << 20;
    const auto begin = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
    const auto end = (reinterpret_cast<uintptr_t>(data) + bytes_) / kHuge * kHuge;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
    for (size_t at = 0; at + panel.size() <= bytes_; at += panel.size()) {
      std::memcpy(data + at, panel.data(), panel.size());
    }
    weight_ = backend.adopt(spec, data);
  }
  const Weight* get() const { return weight_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  cpu::Buffer<std::byte> memory_;
  size_t bytes_ = 0;
  std::unique_ptr<Weight> weight_;
};

struct Layer {
  RandomWeight qkv, o, gate_up, down;
  Layer(Backend& b, const Settings& s, WeightFormat f)
      : qkv(b, WeightKind::linear, f, s.qkv, s.hidden),
        o(b, WeightKind::linear, f, s.hidden, s.hidden),
        gate_up(b, WeightKind::gate_up, f, 2 * s.intermediate, s.hidden),
        down(b, WeightKind::linear, f, s.hidden, s.intermediate) {}
  size_t bytes() const { return qkv.bytes() + o.bytes() + gate_up.bytes() + down.bytes(); }
};

void measure(const Settings& s, WeightFormat format, LimitProbe& limits, bool& first) {
  const auto backend = cpu::make_backend({.threads = s.threads, .isa = s.isa});
  std::vector<Layer> layers;
  for (int i = 0; i < s.layers; i++) layers.emplace_back(*backend, s, format);
  std::vector<float> ones(static_cast<size_t>(s.hidden), 1.0f);
  const WeightSpec vector{WeightKind::vector, WeightFormat::f32, 1, s.hidden};
  const SourceTensor part{reinterpret_cast<const std::byte*>(ones.data()), DType::f32, 1, s.hidden};
  std::vector<std::byte> packed_norm(backend->packed_bytes(vector) + 64);
  backend->pack(vector, {&part, 1}, 0, 1, packed_norm.data());
  const auto norm = backend->adopt(vector, packed_norm.data());

  for (const std::string& tokens : list(s.tokens)) {
    const int m = std::atoi(tokens.c_str());
    std::vector<float> x(static_cast<size_t>(m * s.hidden)),
        wide(static_cast<size_t>(m * std::max(s.qkv, s.intermediate)));
    std::mt19937 random(2);
    for (float& v : x) v = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
    const Times t = measure_beside(limits, format, s.seconds, [&] {
      for (const Layer& layer : layers) {
        backend->norm_linear({x.data(), m, norm.get(), layer.qkv.get(), wide.data()});
        backend->linear_add({wide.data(), m, layer.o.get(), x.data()});
        backend->norm_linear({x.data(), m, norm.get(), layer.gate_up.get(), wide.data()});
        backend->linear_add({wide.data(), m, layer.down.get(), x.data()});
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
