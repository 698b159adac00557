#include "train/trainer.h"

#include <cmath>
#include <cstdio>

#include "util/error.h"

namespace sdar::train {
namespace {

void require(bool allowed, const char* name, double value, const char* what) {
  if (allowed) return;
  char text[160];
  std::snprintf(text, sizeof text, "%s is %g; allowed: %s", name, value, what);
  throw Error(code::kInvalidOption, text);
}

}  // namespace

void TrainSettings::check() const {
  require(adamw.beta1 >= 0 && adamw.beta1 < 1, "beta1", adamw.beta1, "0 to below 1");
  require(adamw.beta2 >= 0 && adamw.beta2 < 1, "beta2", adamw.beta2, "0 to below 1");
  require(adamw.epsilon > 0 && adamw.epsilon < 1, "epsilon", adamw.epsilon, "above 0, below 1");
  require(adamw.weight_decay >= 0 && adamw.weight_decay < 1e3, "weight decay", adamw.weight_decay, "0 to below 1000");
  require(schedule.peak > 0 && schedule.peak <= 1, "learning rate", schedule.peak, "above 0, at most 1");
  require(schedule.steps >= 1, "steps", static_cast<double>(schedule.steps), "1 or more");
  require(schedule.warmup >= 0 && schedule.warmup < schedule.steps, "warm-up", static_cast<double>(schedule.warmup),
          "0 to one less than the steps");
  require(clip > 0 && std::isfinite(clip), "clip", clip, "above 0");
  require(muon.momentum >= 0 && muon.momentum < 1, "momentum", muon.momentum, "0 to below 1");
  require(ema >= 0 && ema < 1, "ema", ema, "0 to below 1");
  require(batches >= 1, "batches", batches, "1 or more");
}

std::string TrainSettings::text() const {
  char text[448];
  std::snprintf(text, sizeof text,
                "optimizer %s momentum %.17g beta1 %.17g beta2 %.17g epsilon %.17g weight_decay %.17g peak %.17g "
                "warmup %lld steps %lld decay %s "
                "clip %.17g ema %.17g batches %d seed %llu",
                kOptimizers[static_cast<size_t>(optimizer)], muon.momentum, adamw.beta1, adamw.beta2, adamw.epsilon,
                adamw.weight_decay, schedule.peak, static_cast<long long>(schedule.warmup),
                static_cast<long long>(schedule.steps), kDecays[static_cast<size_t>(schedule.decay)], clip, ema,
                batches, static_cast<unsigned long long>(seed));
  return text;
}

Trainer::Trainer(Network& network, Compute& compute, const TrainSettings& settings, std::vector<float> weights)
    : network_(network), compute_(compute), settings_(settings), weights_(std::move(weights)) {
  settings.check();
  const auto size = static_cast<size_t>(network.layout().size());
  if (weights_.size() != size)
    throw Error(code::kInvalidOption, "weights: " + std::to_string(weights_.size()) + " of " + std::to_string(size));
  gradients_.resize(size);
  moments_ = moments_of(network.layout(), settings.optimizer);
  if (settings.ema > 0) averaged_ = weights_;
}

StepReport Trainer::step(const std::function<TrainingRows(uint64_t)>& rows) {
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  const double share = 1.0 / settings_.batches;
  StepReport report{.step = step_, .rate = settings_.schedule.rate(step_)};
  const auto stop = [&](const char* what, double value, uint64_t batch) {
    throw Error(code::kNumericError, std::string(what) + " is " + std::to_string(value) + " at step " +
                                         std::to_string(step_) + ", batch " + std::to_string(batch));
  };
  const auto first = static_cast<uint64_t>(step_) * static_cast<uint64_t>(settings_.batches);
  const uint64_t end = first + static_cast<uint64_t>(settings_.batches);
  for (uint64_t batch = first; batch < end; batch++) {
    const double loss = network_.loss_and_gradients(weights_.data(), rows(batch), gradients_.data());
    if (!std::isfinite(loss)) stop("loss", loss, batch);
    report.loss += loss * share;
  }
  report.norm = norm_of(compute_, gradients_) * share;
  if (!std::isfinite(report.norm)) stop("norm of the gradients", report.norm, end - 1);
  const double scale = report.norm > settings_.clip ? share * settings_.clip / report.norm : share;
  const Layout& layout = network_.layout();
  if (settings_.optimizer == OptimizerKind::muon)
    muon_step(compute_, layout, settings_.muon, settings_.adamw, step_, report.rate, scale, gradients_, moments_,
              weights_);
  else
    adamw_step(compute_, layout, settings_.adamw, step_, report.rate, scale, gradients_, moments_, weights_);
  step_++;
  average();
  return report;
}

void Trainer::average() {
  if (averaged_.empty()) return;
  // The share of the newest among all steps so far, so that the first average is the first weights.
  const auto share =
      static_cast<float>((1 - settings_.ema) / (1 - std::pow(settings_.ema, static_cast<double>(step_))));
  compute_.split(static_cast<int64_t>(weights_.size()), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float& mean = averaged_[static_cast<size_t>(i)];
      mean = (1 - share) * mean + share * weights_[static_cast<size_t>(i)];
    }
  });
}

}  // namespace sdar::train
