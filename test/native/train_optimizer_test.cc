// Muon: its orthogonalised updates against plain ones, singular values; a trainer that uses it, with an average of the
// weights; states that go on with the same bits.
#include "check.h"
#include "checkpoint_files.h"
#include "train/optimizer.h"
#include "train/recipe.h"
#include "train/trainer.h"
#include "train_networks.h"

using namespace sdar;
using namespace sdar::train;

namespace {

/// Five steps on x / |x|, in double.
std::vector<double> plain_orthogonal(const std::vector<float>& from, int64_t rows, int64_t cols) {
  double norm = 0;
  for (const float v : from) norm += static_cast<double>(v) * v;
  std::vector<double> x(from.begin(), from.end());
  for (double& v : x) v /= std::sqrt(norm);
  for (int step = 0; step < 5; step++) {
    // X Xᵀ X and X Xᵀ X Xᵀ X; which side is smaller is nobody's concern here.
    const auto with_gram = [&](const std::vector<double>& y) {
      std::vector<double> g(static_cast<size_t>(rows * rows)), out(y.size());
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < rows; j++)
          for (int64_t k = 0; k < cols; k++) g[i * rows + j] += x[i * cols + k] * x[j * cols + k];
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < rows; j++)
          for (int64_t k = 0; k < cols; k++) out[i * cols + k] += g[i * rows + j] * y[j * cols + k];
      return out;
    };
    const std::vector<double> third = with_gram(x), fifth = with_gram(third);
    for (size_t i = 0; i < x.size(); i++) x[i] = 3.4445 * x[i] - 4.7750 * third[i] + 2.0315 * fifth[i];
  }
  return x;
}

/// Of a matrix [rows, cols], rows <= cols, by Jacobi rotations of its rows.
std::vector<double> singular_values(std::vector<double> x, int64_t rows, int64_t cols) {
  const auto along = [&](int64_t i, int64_t j) {
    double sum = 0;
    for (int64_t k = 0; k < cols; k++) sum += x[i * cols + k] * x[j * cols + k];
    return sum;
  };
  for (int sweep = 0; sweep < 20; sweep++) {
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = i + 1; j < rows; j++) {
        const double both = along(i, j);
        if (std::abs(both) < 1e-14) continue;
        const double angle = 0.5 * std::atan2(2 * both, along(i, i) - along(j, j));
        const double c = std::cos(angle), s = std::sin(angle);
        for (int64_t k = 0; k < cols; k++) {
          const double a = x[i * cols + k], b = x[j * cols + k];
          x[i * cols + k] = c * a + s * b;
          x[j * cols + k] = c * b - s * a;
        }
      }
    }
  }
  std::vector<double> values;
  for (int64_t i = 0; i < rows; i++) values.push_back(std::sqrt(along(i, i)));
  return values;
}

TrainingRows batch(uint64_t number) {
  const Sample sample{ids_of(10, static_cast<int32_t>(number % 3) + 4), {0, 0, 1, 1, 1, 1, 1, 1, 1, 1}};
  return autoregressive_rows(std::span(&sample, 1));
}

TrainSettings settings_of(OptimizerKind optimizer, double ema) {
  TrainSettings settings;
  settings.optimizer = optimizer;
  settings.schedule = {.peak = 1e-2, .warmup = 2, .steps = 30, .decay = Decay::linear};
  settings.ema = ema;
  return settings;
}

struct Run {
  Compute compute;
  Network network;
  Trainer trainer;
  Run(const TrainSettings& settings, int threads)
      : compute(threads),
        network(config_of(false, 3, 2, true), compute),
        trainer(network, compute, settings, weights_of(network.layout())) {}
  double to(int64_t step) {
    double loss = 0;
    while (trainer.steps_done() < step) loss = trainer.step(batch).loss;
    return loss;
  }
};

}  // namespace

TEST("orthogonalise: plain steps in double, singular values near 1, wide and tall, same bits whatever the threads") {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{13, 29}, {29, 13}, {12, 12}, {1, 9}, {70, 300}}) {
    const std::vector<float> from = gradients::random_values(rows * cols, 5, 0, 3);
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
      Compute compute(threads);
      std::vector<float> x = from;
      orthogonalise(compute, rows, cols, x.data());
      if (first.empty()) first = x;
      CHECK(x == first);
    }
    const std::vector<double> plain = plain_orthogonal(from, rows, cols);
    double worst = 0;
    for (size_t i = 0; i < plain.size(); i++) worst = std::max(worst, std::abs(plain[i] - first[i]));
    CHECK_NEAR(worst, 0, 2e-4);
    std::vector<double> wide(plain.size());
    const int64_t small = std::min(rows, cols), large = std::max(rows, cols);
    for (int64_t i = 0; i < small; i++)
      for (int64_t j = 0; j < large; j++) wide[i * large + j] = first[rows <= cols ? i * cols + j : j * cols + i];
    for (const double value : singular_values(wide, small, large)) CHECK(value > 0.65 && value < 1.25);
  }
  Compute compute(1);
  std::vector<float> zero(12);
  orthogonalise(compute, 3, 4, zero.data());
  CHECK(zero == std::vector<float>(12));
}

TEST("a step of Muon: matrices of layers by it, the rest as AdamW has it") {
  Compute compute(2);
  const Layout layout(config_of(false, 3, 2, true));
  const AdamW adamw{.weight_decay = 0.3};
  const std::vector<float> start = weights_of(layout);
  std::vector<float> by_muon = start, by_adamw = start;
  Moments moments = moments_of(layout, OptimizerKind::muon), plain = moments_of(layout, OptimizerKind::adamw);
  CHECK(moments.second.size() < plain.second.size() && plain.second.size() == start.size());
  std::vector<double> momentum(start.size());
  for (int step = 0; step < 2; step++) {
    const std::vector<float> g = gradients::random_values(layout.size(), static_cast<uint32_t>(step) + 1);
    const std::vector<float> before = by_muon;
    muon_step(compute, layout, {.momentum = 0.9}, adamw, step, 0.1, 0.5, g, moments, by_muon);
    adamw_step(compute, layout, adamw, step, 0.1, 0.5, g, plain, by_adamw);
    for (const Parameter& p : layout.parameters()) {
      const auto begin = static_cast<size_t>(p.offset), n = static_cast<size_t>(p.elements());
      const bool hidden = !p.vector && p.name != "lm_head.weight" && p.name != "model.embed_tokens.weight";
      CHECK(is_muons(p) == hidden);
      if (!hidden) {
        CHECK(std::equal(by_muon.begin() + p.offset, by_muon.begin() + p.offset + p.elements(),
                         by_adamw.begin() + p.offset));
        continue;
      }
      std::vector<float> update(n);
      for (size_t i = 0; i < n; i++) {
        momentum[begin + i] = 0.9 * momentum[begin + i] + 0.5 * g[begin + i];
        update[i] = static_cast<float>(0.5 * g[begin + i] + 0.9 * momentum[begin + i]);
      }
      const std::vector<double> along = plain_orthogonal(update, p.rows, p.cols);
      const double size = 0.1 * 0.2 * std::sqrt(static_cast<double>(std::max(p.rows, p.cols)));
      double worst = 0;
      for (size_t i = 0; i < n; i++)
        worst = std::max(worst, std::abs(before[begin + i] * (1 - 0.1 * 0.3) - size * along[i] - by_muon[begin + i]));
      CHECK_NEAR(worst, 0, 1e-4);
    }
  }
}

TEST("Muon lowers the loss") {
  Run run(settings_of(OptimizerKind::muon, 0), 2);
  const double first = run.to(1), last = run.to(30);
  CHECK(last < 0.3 * first);
}

TEST("the average: of all steps' weights, the first one right already") {
  Run run(settings_of(OptimizerKind::adamw, 0.8), 2);
  CHECK(run.trainer.averaged() == run.trainer.weights());
  std::vector<double> sum(run.trainer.weights().size());
  double shares = 0;
  for (int step = 1; step <= 6; step++) {
    run.to(step);
    shares = 0.8 * shares + 1;
    double worst = 0;
    for (size_t i = 0; i < sum.size(); i++) {
      sum[i] = 0.8 * sum[i] + run.trainer.weights()[i];
      worst = std::max(worst, std::abs(sum[i] / shares - run.trainer.averaged()[i]));
    }
    CHECK_NEAR(worst, 0, 1e-6);
    CHECK((run.trainer.averaged() == run.trainer.weights()) == (step == 1));
  }
  Run none(settings_of(OptimizerKind::adamw, 0), 2);
  none.to(6);
  CHECK(none.trainer.weights() == run.trainer.weights() && none.trainer.averaged() == none.trainer.weights());
}

TEST("Muon and the average resume with the same bits, whatever the threads; not under other settings") {
  const files::TempFolder folder;
  const TrainSettings settings = settings_of(OptimizerKind::muon, 0.9);
  Run whole(settings, 1), begun(settings, 3), resumed(settings, 2);
  whole.to(7);
  begun.to(3);
  begun.trainer.save(folder.path);
  resumed.trainer.resume(folder.path);
  CHECK(resumed.trainer.averaged() == begun.trainer.averaged());
  resumed.to(7);
  CHECK(resumed.trainer.weights() == whole.trainer.weights());
  CHECK(resumed.trainer.averaged() == whole.trainer.averaged());
  Run adamw(settings_of(OptimizerKind::adamw, 0.9), 1), without(settings_of(OptimizerKind::muon, 0), 1);
  CHECK_THROWS("INVALID_OPTION", "optimizer muon", adamw.trainer.resume(folder.path));
  CHECK_THROWS("INVALID_OPTION", "ema 0.9", without.trainer.resume(folder.path));
  TrainSettings wrong = settings;
  wrong.ema = 1;
  CHECK_THROWS("INVALID_OPTION", "ema is 1; allowed: 0 to below 1", wrong.check());
  wrong = settings;
  wrong.muon.momentum = -1;
  CHECK_THROWS("INVALID_OPTION", "momentum is -1; allowed: 0 to below 1", wrong.check());
}

int main(int argc, char** argv) { return check::run(argc, argv); }
