// Time of block attention alone, one layer, SDAR-1.7B shape by default, beside the machine's own limits measured in
// between: reading the keys and values once, and the multiply-adds at the peak of the operands' format.
//   attention_bench [--isa NAME] [--threads N] [--kv f32,bf16,int8] [--context 256,8192] [--rows 8] [--block 8]
//                   [--heads 16] [--kv-heads 8] [--head-dim 128] [--seconds 0.5]
// Prints JSON; times are medians. `ratio` is the time over the larger of the two limits.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "measure.h"

using namespace sdar;

namespace {

constexpr int32_t kLayers = 4;  // more keys and values than caches hold, as between the layers of a model

struct Settings {
  std::string isa, kv = "f32,bf16,int8", context = "256,8192";
  int threads = 0, rows = 8, block = 8;
  double seconds = 0.5;
  ModelShape shape;
};

Settings settings_of(int argc, char** argv) {
  Settings s;
  s.shape.layers = kLayers;
  s.shape.heads = 16;
  s.shape.kv_heads = 8;
  s.shape.head_dim = 128;
  parse(argc, argv,
        {{"--isa", &s.isa},
         {"--kv", &s.kv},
         {"--context", &s.context},
         {"--threads", &s.threads},
         {"--rows", &s.rows},
         {"--block", &s.block},
         {"--heads", &s.shape.heads},
         {"--kv-heads", &s.shape.kv_heads},
         {"--head-dim", &s.shape.head_dim},
         {"--seconds", &s.seconds}});
  choose_machine(s.isa, s.threads);
  return s;
}

/// The last `rows` positions of `context`, all before them already in the pages.
void measure(const Settings& s, KvFormat format, int32_t context, LimitProbe& limits, bool first) {
  ModelShape shape = s.shape;
  shape.context = context;
  const cpu::AttentionKernels& kernels = cpu::attention_kernels(s.isa.c_str());
  const int32_t per_page = tokens_per_page(s.block), pages = (context + per_page - 1) / per_page;
  cpu::Pool pool(s.threads);
  cpu::Attention attention(pool, kernels);
  attention.configure(shape, {pages, format}, s.rows);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<int32_t> ids(pages);
  for (int32_t i = 0; i < pages; i++) ids[i] = i;
  std::vector<float> vector(shape.head_dim + 1024);
  for (float& x : vector) x = normal(random);
  for (int32_t p = 0; p < context; p++) {
    for (int32_t layer = 0; layer < kLayers; layer++) {
      for (int32_t head = 0; head < shape.kv_heads; head++) {
        std::byte* slab = attention.pages().slab(p / per_page, layer, head);
        attention.pages().write_key(slab, p % per_page, &vector[random() % 1024]);
        attention.pages().write_value(slab, p % per_page, &vector[random() % 1024]);
      }
    }
  }
  std::vector<float> qkv(static_cast<size_t>(s.rows) * (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
  std::vector<float> out(static_cast<size_t>(s.rows) * shape.heads * shape.head_dim), norm(shape.head_dim, 1.0f);
  for (float& x : qkv) x = normal(random);
  const Segment segment{0, s.rows, context - s.rows, s.block, ids.data()};

  const bool bf16 = kernels.formats[static_cast<int>(format)].bf16_operands;
  const Times t = measure_beside(limits, bf16 ? WeightFormat::bf16 : WeightFormat::f32, s.seconds, [&] {
    attention.begin_step({&segment, 1}, s.rows);
    for (int32_t layer = 0; layer < kLayers; layer++) {
      attention.run({layer, qkv.data(), out.data(), nullptr, nullptr}, norm.data(), norm.data());
    }
  });
  const double bytes = static_cast<double>(pages) * cpu::Attention::page_bytes(shape, format) / kLayers;
  const double operations = 4.0 * s.rows * shape.heads * shape.head_dim * context;
  const double time = t.seconds.median() / kLayers, best = t.seconds.least() / kLayers;
  const double read = bytes / t.bandwidths.median(), multiply = operations / t.rates.median();
  std::printf(
      "%s\n  {\"kv\": \"%s\", \"context\": %d, \"us\": %.1f, \"best_us\": %.1f, \"read_once_us\": %.1f, "
      "\"multiply_us\": %.1f, \"operands\": \"%s\", \"ratio\": %.2f}",
      first ? "" : ",", name_of(format), context, time * 1e6, best * 1e6, read * 1e6, multiply * 1e6,
      bf16 ? "bf16" : "f32", time / std::max(read, multiply));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const Settings s = settings_of(argc, argv);
  const auto limits = make_limit_probe(s.threads, s.isa);
  std::printf(
      "{\"isa\": \"%s\", \"threads\": %d, \"rows\": %d, \"block\": %d, \"heads\": %d, \"kv_heads\": %d, "
      "\"head_dim\": %d, \"results\": [",
      s.isa.c_str(), s.threads, s.rows, s.block, s.shape.heads, s.shape.kv_heads, s.shape.head_dim);
  bool first = true;
  for (const std::string& kv : list(s.kv)) {
    for (const std::string& context : list(s.context)) {
      const KvFormat format = kv == "f32" ? KvFormat::f32 : kv == "bf16" ? KvFormat::bf16 : KvFormat::int8;
      measure(s, format, std::atoi(context.c_str()), *limits, first);
      first = false;
    }
  }
  std::printf("\n]}\n");
  return 0;
}
