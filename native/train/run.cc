#include "train/run.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "train/initial.h"
#include "util/error.h"
#include "util/mapped_file.h"

namespace sdar::train {
namespace {

/// Of the noise that held-out samples get: not that of any step.
constexpr uint64_t kEvaluation = 0x6576616c75617465u;
constexpr size_t kMaxText = 256 << 20;  // of a file beside the tensors

void check(const std::function<bool()>& cancelled, const char* when) {
  if (cancelled && cancelled()) throw Error(code::kAborted, std::string("the run was aborted while it was ") + when);
}

BatchPlan plan_of(const Dataset& data, const RunOptions& options) {
  std::vector<int32_t> lengths, rows;
  for (int64_t i = 0; i < data.size(); i++) {
    lengths.push_back(data.length(i));
    rows.push_back(static_cast<int32_t>(row_count(options.recipe, data.sample(i))));
  }
  PlanOptions plan = options.plan;
  plan.seed = options.settings.seed;
  plan.batches = options.settings.batches;
  return BatchPlan(lengths, rows, plan);
}

RunOptions completed(RunOptions options, const ModelConfig& config) {
  options.recipe.mask_id = config.mask_token_id;
  options.recipe.check();
  if (options.settings.batches < 1) options.settings.check();
  if (options.lora) {
    options.lora->seed = options.settings.seed;
    if (config.mask_token_id >= 0) options.lora->embedding_rows = {config.mask_token_id};
  }
  return options;
}

}  // namespace

/// An open file that no other process has locked; the system lets go of it whatever ends this one.
class Run::Lock {
 public:
  explicit Lock(const std::string& path) : file_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (file_ < 0) throw Error(code::kFileUnwritable, path + ": cannot be written: " + std::strerror(errno));
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    close(file_);
    throw Error(code::kInvalidOption,
                path + ": another process goes on with this run; wait for it, or give another folder (run)");
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() { close(file_); }

 private:
  int file_;
};

Run::Run(const RunOptions& options, const std::function<bool()>& cancelled)
    : options_(options),
      lock_(new Lock(options.folder + "/lock"), [](Lock* lock) { delete lock; }),
      config_(read_config(options.model)),
      data_(options.samples, config_.shape.vocabulary),
      plan_(plan_of(data_, options_ = completed(options, config_))),
      compute_(options.threads, "", options.format) {
  const auto check_cancelled = [&] { check(cancelled, "opened"); };
  Schedule& schedule = options_.settings.schedule;
  schedule.steps = plan_.batches() / options_.settings.batches;
  schedule.warmup = std::min(static_cast<int64_t>(std::ceil(options_.warmup * static_cast<double>(schedule.steps))),
                             schedule.steps - 1);
  memory_ = fit(config_, options_.settings, compute_, options_.activations,
                {.rows = std::max(plan_.most_rows(), plan_.longest()), .longest = plan_.longest()},
                options_.lora ? &*options_.lora : nullptr);
  const bool resumes = is_file(options_.folder + "/state");
  std::vector<float> weights;
  if (options_.lora) {
    adaptation_ = std::make_unique<Adaptation>(config_, *options_.lora, options_.parent, check_cancelled);
    network_ = std::make_unique<Network>(*adaptation_, compute_, memory_.activations);
    weights = adaptation_->initial();
  } else {
    network_ = std::make_unique<Network>(config_, compute_, memory_.activations);
    if (resumes)
      weights.resize(static_cast<size_t>(network_->layout().size()));
    else if (options_.parent.empty())
      weights = initial_weights(config_, network_->layout(), options_.settings.seed);
    else
      weights = read_parameters(options_.parent, config_, network_->layout(), check_cancelled);
  }
  trainer_ = std::make_unique<Trainer>(*network_, compute_, options_.settings, std::move(weights));
  if (resumes) trainer_->resume(options_.folder, check_cancelled);
  check_cancelled();
}

std::vector<Sample> Run::samples(std::span<const int64_t> numbers) const {
  std::vector<Sample> samples;
  for (const int64_t number : numbers) samples.push_back(data_.sample(number));
  return samples;
}

RunReport Run::step() {
  if (trainer_->finished()) throw Error(code::kInvalidOption, "all " + std::to_string(steps()) + " steps are done");
  RunReport report;
  const auto began = std::chrono::steady_clock::now();
  report.step = trainer_->step([&](uint64_t batch) {
    const std::vector<Sample> batch_samples = samples(plan_.samples_of(static_cast<int64_t>(batch)));
    for (const Sample& sample : batch_samples) {
      report.tokens += static_cast<int64_t>(sample.ids.size());
      for (const uint8_t flag : sample.answer) report.answer_tokens += flag != 0;
    }
    const double progress = static_cast<double>(batch) / static_cast<double>(plan_.batches());
    TrainingRows rows = rows_of(options_.recipe, batch_samples, options_.settings.seed,
                                plan_.first_index(static_cast<int64_t>(batch)), progress);
    report.rows += rows.size();
    return rows;
  });
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return report;
}

void Run::write(const std::string& folder, DType dtype, const WeightHooks& hooks) {
  CheckpointOptions options{.dtype = dtype, .texts = {}};
  for (const auto& entry : std::filesystem::directory_iterator(options_.model))
    options.texts.push_back({entry.path().filename(), read_file(entry.path(), kMaxText)});
  if (adaptation_)
    write_checkpoint(folder, *adaptation_, compute_, trainer_->averaged(), options, hooks);
  else
    write_checkpoint(folder, network_->layout(), trainer_->averaged(), options, hooks);
}

double Run::evaluate(const std::function<bool()>& cancelled) {
  const std::vector<int64_t>& held_out = plan_.held_out();
  const auto count = std::min<int64_t>(kMostEvaluated, static_cast<int64_t>(held_out.size()));
  double loss = 0, weight = 0;
  for (int64_t first = 0, end; first < count; first = end) {
    check(cancelled, "evaluated");
    int64_t rows = 0;
    for (end = first; end < count; end++) {
      const int64_t more = row_count(options_.recipe, data_.sample(held_out[static_cast<size_t>(end)]));
      if (end > first && rows + more > options_.plan.rows) break;
      rows += more;
    }
    const std::vector<Sample> batch =
        samples(std::span(held_out).subspan(static_cast<size_t>(first), static_cast<size_t>(end - first)));
    double answer = 0;
    for (const Sample& sample : batch)
      for (const uint8_t flag : sample.answer) answer += flag != 0;
    loss += answer * network_->loss(trainer_->averaged().data(),
                                    rows_of(options_.recipe, batch, kEvaluation, static_cast<uint64_t>(first), 1));
    weight += answer;
  }
  return weight > 0 ? loss / weight : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace sdar::train
