// Training on the CPU: the matrix products of a layer (forward, gradient of the input, gradient of the weight), attention,
// whole networks, forward and backward, and steps with the optimiser, beside the machine's multiply peak measured in between.
//   train_bench [--isa NAME] [--format f32|bf16] [--threads N] [--rows 4096] [--sample 256] [--hidden 256] [--intermediate 640] [--layers 6]
//               [--heads 4] [--kv-heads 2] [--head-dim 64] [--vocabulary 560] [--seconds 1]
//               [--what products,attention,network,step]
// Rows are token-causal samples of `sample` positions; the shape by default is models/qwen3-nano's. Prints JSON; times are
// medians. `ratio` is the time over that of the multiply-adds at the peak, `multiply_share` its inverse.
#include <algorithm>
#include <cstdio>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "measure.h"
#include "train/trainer.h"

using namespace sdar;
using namespace sdar::train;

namespace {

struct Settings {
  std::string isa, format = "f32", what = "products,attention,network,step";
  int threads = 0, rows = 4096, sample = 256;
  double seconds = 1;
  ModelConfig config;
};

Settings settings_of(int argc, char** argv) {
  Settings s;
  ModelShape& shape = s.config.shape;
  shape.layers = 6, shape.vocabulary = 560;
  shape.hidden = 256, shape.intermediate = 640;
  shape.heads = 4, shape.kv_heads = 2, shape.head_dim = 64;
  parse(argc, argv,
        {{"--isa", &s.isa},
         {"--format", &s.format},
         {"--what", &s.what},
         {"--threads", &s.threads},
         {"--rows", &s.rows},
         {"--sample", &s.sample},
         {"--hidden", &shape.hidden},
         {"--intermediate", &shape.intermediate},
         {"--layers", &shape.layers},
         {"--heads", &shape.heads},
         {"--kv-heads", &shape.kv_heads},
         {"--head-dim", &shape.head_dim},
         {"--vocabulary", &shape.vocabulary},
         {"--seconds", &s.seconds}});
  choose_machine(s.isa, s.threads);
  shape.context = s.sample;
  s.config.tied = true;
  s.config.sparse.assign(static_cast<size_t>(shape.layers), false);
  return s;
}

std::vector<float> random_floats(int64_t n, float spread) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

class Report {
 public:
  explicit Report(const Settings& s) : settings_(s), limits_(make_limit_probe(s.threads, s.isa)) {}

  /// `operations`: two for each multiply-add that the work cannot do without.
  template <class Work>
  void measure(const char* what, double operations, Work&& work) {
    const Times t = measure_beside(*limits_, WeightFormat::f32, settings_.seconds, work);
    const double seconds = t.seconds.median(), ratio = seconds * t.rates.median() / operations;
    std::printf("%s\n  {\"what\": \"%s\", \"ms\": %.3f, \"best_ms\": %.3f, \"gflops\": %.1f, \"peak_gflops\": %.1f, ",
                first_ ? "" : ",", what, seconds * 1e3, t.seconds.least() * 1e3, operations / seconds * 1e-9,
                t.rates.median() * 1e-9);
    std::printf("\"ratio\": %.2f, \"multiply_share\": %.3f, \"rows_per_second\": %.0f}", ratio, 1 / ratio,
                settings_.rows / seconds);
    first_ = false;
  }

 private:
  const Settings& settings_;
  std::unique_ptr<LimitProbe> limits_;
  bool first_ = true;
};

void measure_products(const Settings& s, Compute& compute, Report& report) {
  const int64_t m = s.rows, in = s.config.shape.hidden, out = s.config.shape.intermediate;
  const auto x = random_floats(m * in, 1), weight = random_floats(in * out, 0.1f), dy = random_floats(m * out, 1);
  std::vector<float> y(dy.size()), dx(x.size()), dw(weight.size());
  const double operations = 2.0 * static_cast<double>(m * in * out);
  report.measure("linear", operations, [&] { linear(compute, x.data(), m, in, out, weight.data(), y.data()); });
  report.measure("linear_backward", 2 * operations, [&] {
    linear_backward(compute, x.data(), dy.data(), m, in, out, weight.data(), dx.data(), false, dw.data());
  });
}

TrainingRows rows_of(const Settings& s) {
  TrainingRows rows;
  std::mt19937 random(7);
  while (rows.size() < s.rows) {
    std::vector<int32_t> ids(static_cast<size_t>(std::min<int64_t>(s.sample, s.rows - rows.size())));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(s.config.shape.vocabulary));
    add_token_causal(rows, ids);
  }
  for (size_t i = 0; i < rows.ids.size(); i++) rows.targets[i] = rows.ids[(i + 1) % rows.ids.size()];
  std::fill(rows.weights.begin(), rows.weights.end(), 1.0f / static_cast<float>(s.rows));
  return rows;
}

/// Multiply-adds of scores and of weighted values.
double attention_products(const TrainingRows& rows, const ModelShape& shape) {
  double seen = 0;
  for (const Sight& sight : rows.sight)
    for (const Span& part : sight.parts) seen += part.end - part.begin;
  return 2 * seen * shape.heads * shape.head_dim;
}

void measure_attention(const Settings& s, const TrainingRows& rows, Compute& compute, Report& report) {
  const ModelShape& shape = s.config.shape;
  const int64_t queries = int64_t{shape.heads} * shape.head_dim, keys = int64_t{shape.kv_heads} * shape.head_dim;
  const auto q = random_floats(s.rows * queries, 1), k = random_floats(s.rows * keys, 1);
  std::vector<float> o(q.size()), lse(static_cast<size_t>(s.rows * shape.heads)), dq(q.size()), dk(k.size()),
      dv(k.size());
  const AttentionShape attends{shape.heads, shape.kv_heads, shape.head_dim};
  const double scores = attention_products(rows, shape);
  report.measure("attention", 2 * scores,
                 [&] { attention(compute, rows, attends, q.data(), k.data(), k.data(), o.data(), lse.data()); });
  report.measure("attention_backward", 5 * scores, [&] {
    attention_backward(compute, rows, attends, q.data(), k.data(), k.data(), o.data(), lse.data(), q.data(), dq.data(),
                       dk.data(), dv.data());
  });
}

double step_operations(const Settings& s, const TrainingRows& rows) {
  const ModelShape& shape = s.config.shape;
  const int64_t queries = int64_t{shape.heads} * shape.head_dim, keys = int64_t{shape.kv_heads} * shape.head_dim;
  const double layer =
      2.0 * s.rows * shape.hidden * static_cast<double>(2 * queries + 2 * keys + 3 * shape.intermediate);
  return 3 * (shape.layers * (layer + 2 * attention_products(rows, shape)) +
              2.0 * s.rows * shape.hidden * shape.vocabulary);
}

void measure_network(const Settings& s, const TrainingRows& rows, Compute& compute, Report& report) {
  for (const Activations activations : {Activations::keep, Activations::recompute}) {
    Network network(s.config, compute, activations);
    const auto weights = random_floats(network.layout().size(), 0.05f);
    std::vector<float> gradients(weights.size());
    const bool keep = activations == Activations::keep;
    report.measure(keep ? "network, activations kept" : "network, recomputed", step_operations(s, rows),
                   [&] { network.loss_and_gradients(weights.data(), rows, gradients.data()); });
  }
}

void measure_step(const Settings& s, const TrainingRows& rows, Compute& compute, Report& report) {
  Network network(s.config, compute, Activations::keep);
  TrainSettings settings;
  settings.schedule.steps = int64_t{1} << 40;
  Trainer trainer(network, compute, settings, random_floats(network.layout().size(), 0.05f));
  report.measure("step, activations kept", step_operations(s, rows),
                 [&] { trainer.step([&](uint64_t) { return rows; }); });
}

}  // namespace

int main(int argc, char** argv) {
  const Settings s = settings_of(argc, argv);
  const auto format = std::find(kFormats.begin(), kFormats.end(), s.format);
  if (format == kFormats.end()) throw std::runtime_error("--format is " + s.format + "; allowed: f32, bf16");
  Compute compute(s.threads, s.isa, static_cast<Format>(format - kFormats.begin()));
  std::printf("{\"isa\": \"%s\", \"format\": \"%s\", \"threads\": %d, \"rows\": %d, \"results\": [",
              compute.kernels().isa, s.format.c_str(), s.threads, s.rows);
  Report report(s);
  const TrainingRows rows = rows_of(s);
  for (const std::string& what : list(s.what)) {
    if (what == "products") measure_products(s, compute, report);
    if (what == "attention") measure_attention(s, rows, compute, report);
    if (what == "network") measure_network(s, rows, compute, report);
    if (what == "step") measure_step(s, rows, compute, report);
  }
  std::printf("\n]}\n");
}
