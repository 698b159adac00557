// Optimiser steps against plain ones, learning rates, clipping, averaging over batches; a state that goes on with the same
// bits, and what stops a run.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>

#include "check.h"
#include "train/recipe.h"
#include "train/trainer.h"
#include "train_networks.h"

using namespace sdar;
using namespace sdar::train;
namespace fs = std::filesystem;

namespace {

struct Folder {
  std::string path = (fs::temp_directory_path() / ("sdar-train-" + std::to_string(getpid()))).string();
  Folder() { fs::remove_all(path); }
  ~Folder() { fs::remove_all(path); }
};

Sample sample_of(uint64_t i) { return {ids_of(10, static_cast<int32_t>(i % 3) + 4), {0, 0, 1, 1, 1, 1, 1, 1, 1, 1}}; }

TrainingRows noisy(uint64_t batch) {
  std::vector<Sample> samples;
  std::vector<Noise> noise;
  for (uint64_t i = 2 * batch; i < 2 * batch + 2; i++) {
    samples.push_back(sample_of(i));
    noise.push_back(draw_noise(samples.back(), 9, i));
  }
  return sdar_rows(samples, noise, 4, 36);
}

TrainSettings settings_of(int64_t steps) {
  TrainSettings s;
  s.schedule = {.peak = 1e-2, .warmup = 2, .steps = steps, .decay = Decay::cosine};
  s.batches = 2;
  s.seed = 9;
  return s;
}

struct Run {
  Compute compute;
  Network network;
  Trainer trainer;
  explicit Run(const TrainSettings& settings, int threads = 2)
      : compute(threads),
        network(config_of(true, 0), compute),
        trainer(network, compute, settings, weights_of(network.layout())) {}
  std::vector<float> to(int64_t step) {
    while (trainer.steps_done() < step) trainer.step(noisy);
    return trainer.weights();
  }
};

}  // namespace

TEST("AdamW: three steps against plain ones in double; norms do not decay") {
  Compute compute(2);
  const Layout layout(config_of(false, 0));
  const AdamW o{.beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.5};
  std::vector<float> weights = weights_of(layout);
  std::vector<double> w(weights.begin(), weights.end()), m(w.size()), v(w.size());
  Moments moments{std::vector<float>(w.size()), std::vector<float>(w.size())};
  for (int step = 0; step < 3; step++) {
    const auto g = gradients::random_values(layout.size(), static_cast<uint32_t>(step));
    adamw_step(compute, layout, o, step, 0.1, 0.5, g, moments, weights);
    for (const Parameter& p : layout.parameters()) {
      for (auto i = static_cast<size_t>(p.offset); i < static_cast<size_t>(p.offset + p.elements()); i++) {
        const double x = 0.5 * g[i];
        m[i] = 0.8 * m[i] + 0.2 * x;
        v[i] = 0.9 * v[i] + 0.1 * x * x;
        if (!p.vector) w[i] -= 0.1 * 0.5 * w[i];
        w[i] -= 0.1 * m[i] / (1 - std::pow(0.8, step + 1)) / (std::sqrt(v[i] / (1 - std::pow(0.9, step + 1))) + 1e-3);
      }
    }
  }
  double worst = 0;
  for (size_t i = 0; i < w.size(); i++) worst = std::max(worst, std::abs(w[i] - weights[i]));
  CHECK_NEAR(worst, 0, 2e-5);
}

TEST("schedules: warm-up, decay to zero, never a step at zero") {
  const Schedule linear{.peak = 1, .warmup = 4, .steps = 12, .decay = Decay::linear};
  CHECK_NEAR(linear.rate(0), 0.25, 1e-12);
  CHECK_NEAR(linear.rate(3), 1, 1e-12);
  CHECK_NEAR(linear.rate(4), 1, 1e-12);
  CHECK_NEAR(linear.rate(8), 0.5, 1e-12);
  CHECK_NEAR(linear.rate(11), 0.125, 1e-12);
  CHECK_NEAR(linear.rate(12), 0, 1e-12);
  const Schedule cosine{.peak = 2, .warmup = 0, .steps = 10, .decay = Decay::cosine};
  CHECK_NEAR(cosine.rate(0), 2, 1e-12);
  CHECK_NEAR(cosine.rate(5), 1, 1e-12);
  CHECK(cosine.rate(9) > 0);
  CHECK_NEAR((Schedule{.peak = 2, .warmup = 1, .steps = 10, .decay = Decay::constant}.rate(9)), 2, 1e-12);
}

TEST("a step: the mean of its batches' gradients, clipped by their norm") {
  for (const double clip : {1e9, 0.1}) {
    TrainSettings settings = settings_of(5);
    settings.clip = clip;
    settings.adamw.epsilon = 0.5;  // large, or the size of the gradients would hardly matter
    Run run(settings);
    std::vector<float> weights = run.trainer.weights(), g(weights.size());
    double loss = 0;
    for (const uint64_t batch : {0, 1}) loss += run.network.loss_and_gradients(weights.data(), noisy(batch), g.data());
    const double norm = norm_of(run.compute, g) / 2, scale = norm > clip ? clip / norm / 2 : 0.5;
    Moments moments{std::vector<float>(g.size()), std::vector<float>(g.size())};
    adamw_step(run.compute, run.network.layout(), settings.adamw, 0, 0.5e-2, scale, g, moments, weights);
    const StepReport report = run.trainer.step(noisy);
    CHECK_NEAR(report.loss, loss / 2, 1e-12);
    CHECK_NEAR(report.norm, norm, 1e-12);
    CHECK_NEAR(report.rate, 0.5e-2, 1e-15);
    CHECK((norm > clip) == (clip < 1));
    double worst = 0;
    for (size_t i = 0; i < g.size(); i++)
      worst = std::max<double>(worst, std::abs(weights[i] - run.trainer.weights()[i]));
    CHECK_NEAR(worst, 0, 1e-7);
  }
}

TEST("training lowers the loss") {
  Run run(settings_of(60));
  double first = 0, last = 0;
  for (int step = 0; step < 60; step++) {
    const double loss = run.trainer
                            .step([](uint64_t i) {
                              const Sample sample = sample_of(i);
                              return autoregressive_rows(std::span(&sample, 1));
                            })
                            .loss;
    (step < 5 ? first : last) = loss;
  }
  CHECK(run.trainer.finished());
  CHECK(last < 0.2 * first);
}

TEST("resumed equals undisturbed, whatever the threads") {
  const Folder folder;
  const TrainSettings settings = settings_of(6);
  const std::vector<float> undisturbed = Run(settings, 1).to(6);
  Run begun(settings, 3);
  begun.to(2);
  begun.trainer.save(folder.path);
  begun.to(4);  // lost
  Run resumed(settings, 2);
  resumed.trainer.resume(folder.path);
  CHECK(resumed.trainer.steps_done() == 2);
  CHECK(resumed.to(6) == undisturbed);
  CHECK(begun.to(6) == undisturbed);
}

TEST("a loss that is no number stops the run by name, with weights and state as they were") {
  const Folder folder;
  Run run(settings_of(6));
  const std::vector<float> before = run.to(2);
  run.trainer.save(folder.path);
  const auto broken = [](uint64_t i) {
    TrainingRows rows = noisy(i);
    if (i == 5) rows.weights[4] = std::numeric_limits<float>::quiet_NaN();
    return rows;
  };
  CHECK_THROWS("NUMERIC_ERROR", "at step 2, batch 5", run.trainer.step(broken));
  CHECK(run.trainer.weights() == before && run.trainer.steps_done() == 2);
  CHECK(run.to(6) == Run(settings_of(6)).to(6));
}

TEST("a state that cannot be written leaves the old one; one that is damaged or of another run is refused") {
  const Folder folder;
  Run run(settings_of(6));
  CHECK_THROWS("FILE_NOT_FOUND", "state", run.trainer.resume(folder.path));
  run.to(1);
  run.trainer.save(folder.path);
  run.to(2);
  struct rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const struct rlimit small = {4096, old.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS("FILE_UNWRITABLE", "state.partial: cannot be written: File too large", run.trainer.save(folder.path));
  setrlimit(RLIMIT_FSIZE, &old);
  CHECK(!fs::exists(folder.path + "/state.partial"));
  std::ofstream(folder.path + "/state.partial") << "what a killed process leaves";
  Run other(settings_of(6));
  other.trainer.resume(folder.path);
  CHECK(other.trainer.steps_done() == 1);

  Run longer(settings_of(7));
  CHECK_THROWS("INVALID_OPTION", "steps 6 decay cosine", longer.trainer.resume(folder.path));
  CHECK(longer.trainer.steps_done() == 0);
  Compute halves(1, "", Format::bf16);
  Network of_halves(config_of(true, 0), halves);
  Trainer rounded(of_halves, halves, settings_of(6), weights_of(of_halves.layout()));
  CHECK_THROWS("INVALID_OPTION", "format f32", rounded.resume(folder.path));
  CHECK_THROWS("INVALID_OPTION", "format bf16", rounded.resume(folder.path));
  Compute compute(1);
  Network untied(config_of(false, 0), compute);
  Trainer wrong(untied, compute, settings_of(6), weights_of(untied.layout()));
  CHECK_THROWS("CHECKPOINT_INVALID", "of another network", wrong.resume(folder.path));
  std::fstream file(folder.path + "/state", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(20000).put('x');
  file.close();
  CHECK_THROWS("CHECKPOINT_INVALID", "damaged", other.trainer.resume(folder.path));
  fs::create_directories(folder.path + "/taken");
  std::ofstream(folder.path + "/taken/file") << "a file";
  CHECK_THROWS("FILE_UNWRITABLE", "/taken/file", run.trainer.save(folder.path + "/taken/file"));
}

TEST("settings are refused by name") {
  const auto refused = [](auto change, const char* part) {
    TrainSettings settings = settings_of(6);
    change(settings);
    CHECK_THROWS("INVALID_OPTION", part, settings.check());
  };
  refused([](TrainSettings& s) { s.adamw.beta1 = 1; }, "beta1 is 1; allowed: 0 to below 1");
  refused([](TrainSettings& s) { s.adamw.beta2 = -1; }, "beta2 is -1");
  refused([](TrainSettings& s) { s.adamw.epsilon = 0; }, "epsilon is 0");
  refused([](TrainSettings& s) { s.adamw.weight_decay = NAN; }, "weight decay is nan");
  refused([](TrainSettings& s) { s.schedule.peak = 0; }, "learning rate is 0");
  refused([](TrainSettings& s) { s.schedule.steps = 0; }, "steps is 0");
  refused([](TrainSettings& s) { s.schedule.warmup = 6; }, "warm-up is 6");
  refused([](TrainSettings& s) { s.clip = INFINITY; }, "clip is inf");
  refused([](TrainSettings& s) { s.batches = 0; }, "batches is 0");
}

int main(int argc, char** argv) { return check::run(argc, argv); }
