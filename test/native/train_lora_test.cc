// Adapters on frozen weights: gradients against central differences, what is trained and what is not; a merged checkpoint
// that the engine loads has the adapted network's losses; training that goes on with the same bits; what is refused.
#include "bench/forward_bench.h"
#include "check.h"
#include "checkpoint_files.h"
#include "train/checkpoint.h"
#include "train/lora.h"
#include "train/recipe.h"
#include "train/trainer.h"
#include "train_networks.h"
#include "util/half.h"

using namespace sdar;
using namespace sdar::train;

namespace {

constexpr int32_t kMask = 36;

TrainingRows batch(uint64_t seed) {
  const Sample sample{ids_of(12, 5), {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
  const Recipe recipe{.objective = Objective::sdar, .blocks = {4}, .mask_id = kMask};
  return rows_of(recipe, std::span(&sample, 1), 3, seed);
}

LoraSettings lora_of(int32_t experts) {
  LoraSettings settings;
  settings.rank = 3;
  settings.alpha = 5;
  settings.embedding_rows = {kMask, 8};
  settings.tensors = {"model.layers.1.input_layernorm.weight"};
  if (experts > 0) settings.targets = {LoraTarget::q, LoraTarget::v, LoraTarget::down};
  settings.seed = 4;
  return settings;
}

/// With a B that is not zero, or A would have no gradient.
std::vector<float> trained_of(const Adaptation& adaptation) {
  std::vector<float> trained = adaptation.initial();
  const auto noise = gradients::random_values(static_cast<int64_t>(trained.size()), 8, 0, 0.2f);
  for (size_t i = 0; i < trained.size(); i++) trained[i] += noise[i];
  return trained;
}

std::vector<float> merged(Compute& compute, const Adaptation& adaptation, const std::vector<float>& trained) {
  std::vector<float> all(static_cast<size_t>(adaptation.full().size()));
  for (const Parameter& p : adaptation.full().parameters())
    adaptation.merge(compute, p, trained.data(), all.data() + p.offset);
  return all;
}

}  // namespace

TEST("adapters: gradients, tied and untied, dense and with experts, frozen as f32 and bf16") {
  Compute compute(2);
  for (const int32_t experts : {0, 3}) {
    for (const bool tied : {false, true}) {
      const ModelConfig config = config_of(tied, experts, experts, tied);
      LoraSettings settings = lora_of(experts);
      settings.frozen = tied ? DType::bf16 : DType::f32;
      Adaptation adaptation(config, settings, weights_of(Layout(config)));
      Network network(adaptation, compute);
      std::vector<float> trained = trained_of(adaptation), g(trained.size());
      const TrainingRows rows = batch(0);
      const auto loss = [&] { return network.loss(trained.data(), rows); };
      CHECK(network.loss_and_gradients(trained.data(), rows, g.data()) == loss());
      for (const Parameter& p : network.layout().parameters())
        gradients::check(loss, trained.data() + p.offset, static_cast<size_t>(p.elements()), g.data() + p.offset,
                         p.name.c_str(), 5e-3);
      const size_t adapters = experts > 0 ? 2 * (2 + 1 + 2) : 2 * 7 * 2;
      CHECK(network.layout().parameters().size() == adapters + 2);
    }
  }
}

TEST("an adapter that has not been trained changes nothing; a merged one is in the weights") {
  Compute compute(2);
  for (const bool tied : {false, true}) {
    const ModelConfig config = config_of(tied, 3, 2, true);
    const std::vector<float> weights = weights_of(Layout(config));
    Adaptation adaptation(config, lora_of(3), weights);
    Network network(adaptation, compute), plain(config, compute);
    CHECK(merged(compute, adaptation, adaptation.initial()) == weights);
    CHECK(network.loss(adaptation.initial().data(), batch(1)) == plain.loss(weights.data(), batch(1)));
    const std::vector<float> trained = trained_of(adaptation), all = merged(compute, adaptation, trained);
    const double loss = network.loss(trained.data(), batch(1));
    CHECK_NEAR(plain.loss(all.data(), batch(1)), loss, 1e-5 * loss);
    CHECK(std::abs(plain.loss(weights.data(), batch(1)) - loss) > 0.01 * loss);
  }
}

TEST("products of bf16: near those of f32; weights frozen as bf16 are the same as rounded ones") {
  const ModelConfig config = config_of(false, 3, 2, true);
  std::vector<float> weights = weights_of(Layout(config));
  for (float& w : weights) w = round_to_bf16(w);
  double exact = 0;
  std::vector<float> first;
  for (const Format format : {Format::f32, Format::bf16}) {
    Compute compute(2, "", format);
    for (const DType frozen : {DType::f32, DType::bf16}) {
      LoraSettings settings = lora_of(3);
      settings.frozen = frozen;
      Adaptation adaptation(config, settings, weights);
      Network network(adaptation, compute);
      const std::vector<float> trained = trained_of(adaptation);
      std::vector<float> g(trained.size());
      const double loss = network.loss_and_gradients(trained.data(), batch(0), g.data());
      g.push_back(static_cast<float>(loss));
      if (format == Format::f32) exact = loss;
      CHECK_NEAR(loss, exact, 0.03 * exact);
      if (frozen == DType::f32) first = g;
      CHECK(g == first);
    }
  }
}

TEST("a merged checkpoint in the engine: the adapted network's losses, with biases") {
  const files::TempFolder folder;
  Compute compute(2);
  const ModelConfig config = config_of(true, 0, 2, true);
  LoraSettings settings = lora_of(0);
  settings.frozen = DType::bf16;
  Adaptation adaptation(config, settings, weights_of(Layout(config)));
  Network network(adaptation, compute);
  const std::vector<float> trained = trained_of(adaptation);
  files::Members members = files::tiny_config();
  members["hidden_size"] = "20", members["num_attention_heads"] = "6", members["num_key_value_heads"] = "2";
  members["head_dim"] = "10", members["intermediate_size"] = "28", members["vocab_size"] = "37";
  members["rms_norm_eps"] = "1e-5", members["tie_word_embeddings"] = "true", members["mask_token_id"] = "36";
  members["attention_bias"] = "true", members["torch_dtype"] = "\"float32\"";
  const std::string path = folder / "merged";
  write_checkpoint(path, adaptation, compute, trained,
                   {.dtype = DType::f32, .texts = {{"config.json", files::object(members)}}});

  BenchOptions options;
  options.engine.path = path;
  options.engine.weights = WeightFormat::f32;
  options.engine.isa = "portable";
  options.context = 16, options.max_tokens = 8;
  ForwardBench engine(options, {});
  std::vector<int32_t> ids = ids_of(8, 5);
  ids[5] = ids[6] = kMask;
  const std::vector<float> logits = engine.logits({.tokens = ids, .block_length = 4, .masked = 0b0110});
  for (size_t row = 0; row < 2; row++) {
    for (const int32_t target : {1, 20, 36}) {
      TrainingRows rows;
      add_block_causal(rows, ids, 4);
      rows.targets[5 + row] = target, rows.weights[5 + row] = 1;
      const float* z = logits.data() + row * 37;
      double sum = 0;
      for (int i = 0; i < 37; i++) sum += std::exp(static_cast<double>(z[i]) - z[target]);
      CHECK_NEAR(network.loss(trained.data(), rows), std::log(sum), 1e-4);
    }
  }
}

TEST("training adapters: lowers the loss, leaves the rest, resumes with the same bits, whatever the threads") {
  const files::TempFolder folder;
  const ModelConfig config = config_of(true, 0);
  const std::vector<float> weights = weights_of(Layout(config));
  LoraSettings settings = lora_of(0);
  settings.targets = {LoraTarget::q, LoraTarget::down};
  TrainSettings steps;
  steps.schedule = {.peak = 2e-2, .warmup = 2, .steps = 40, .decay = Decay::constant};
  struct Run {
    Compute compute;
    Adaptation adaptation;
    Network network;
    Trainer trainer;
    Run(const ModelConfig& c, const LoraSettings& l, const TrainSettings& s, const std::vector<float>& w, int threads)
        : compute(threads),
          adaptation(c, l, w),
          network(adaptation, compute),
          trainer(network, compute, s, adaptation.initial()) {}
  };
  Run whole(config, settings, steps, weights, 1), begun(config, settings, steps, weights, 2);
  double first = 0, last = 0;
  for (int i = 0; i < 40; i++) {
    last = whole.trainer.step([](uint64_t) { return batch(0); }).loss;
    if (i == 0) first = last;
  }
  CHECK(last < 0.5 * first);
  for (int i = 0; i < 7; i++) begun.trainer.step([](uint64_t) { return batch(0); });
  begun.trainer.save(folder.path);
  Run resumed(config, settings, steps, weights, 3);
  resumed.trainer.resume(folder.path);
  while (!resumed.trainer.finished()) resumed.trainer.step([](uint64_t) { return batch(0); });
  CHECK(resumed.trainer.weights() == whole.trainer.weights());

  const std::vector<float> all = merged(whole.compute, whole.adaptation, whole.trainer.weights());
  for (const Parameter& p : whole.adaptation.full().parameters()) {
    const auto changed = [&](int64_t i) { return all[size_t(p.offset + i)] != weights[size_t(p.offset + i)]; };
    const bool table = p.name == "model.embed_tokens.weight";
    const bool trained = p.name.find("q_proj") != p.name.npos || p.name.find("down_proj") != p.name.npos ||
                         p.name == settings.tensors[0];
    if (!table) CHECK(changed(p.elements() / 2) == trained);
    for (int64_t id = 0; table && id < 37; id++) CHECK(changed(id * 20 + 3) == (id == kMask || id == 8));
  }
  std::vector<float> other = weights;
  other.back() += 1;
  Run foreign(config, settings, steps, other, 1);
  CHECK_THROWS("INVALID_OPTION", "frozen weights", foreign.trainer.resume(folder.path));
  settings.alpha = 6;
  Run changed(config, settings, steps, weights, 1);
  CHECK_THROWS("INVALID_OPTION", "alpha 5", changed.trainer.resume(folder.path));
}

TEST("settings of adapters are refused by name") {
  const auto refused = [](auto change, const char* part, int32_t experts = 0) {
    LoraSettings settings = lora_of(experts);
    change(settings);
    CHECK_THROWS("INVALID_OPTION", part, settings.check(config_of(true, experts)));
  };
  lora_of(0).check(config_of(true, 0));
  refused([](LoraSettings& s) { s.rank = 0; }, "rank is 0; allowed: 1 to hidden_size, 20");
  refused([](LoraSettings& s) { s.alpha = 0; }, "alpha is 0");
  refused([](LoraSettings& s) { s.frozen = DType::f16; }, "frozen is f16; allowed: f32, bf16");
  refused([](LoraSettings& s) { s.targets = {}, s.tensors = {}, s.embedding_rows = {}; }, "targets: none");
  refused([](LoraSettings& s) { s.targets.push_back(LoraTarget::q); }, "targets: q twice");
  refused([](LoraSettings& s) { s.tensors = {"x"}; }, "tensors: x; allowed: names of the checkpoint's tensors");
  refused([](LoraSettings& s) { s.tensors.push_back(s.tensors[0]); }, "layernorm.weight twice");
  refused([](LoraSettings& s) { s.tensors = {"model.layers.1.mlp.gate.weight"}; }, "mixtures of experts", 3);
  refused([](LoraSettings& s) { s.tensors = {"model.layers.0.mlp.up_proj.weight"}; }, "which has an adapter");
  refused([](LoraSettings& s) { s.tensors = {"model.embed_tokens.weight"}; }, "trained whole; allowed: either");
  refused([](LoraSettings& s) { s.embedding_rows = {37}; }, "embedding rows: 37; allowed: 0 to 36");
  refused([](LoraSettings& s) { s.embedding_rows = {3, 3}; }, "embedding rows: 3");
  ModelConfig sparse = config_of(true, 3);
  sparse.sparse = {true, true};
  CHECK_THROWS("INVALID_OPTION", "down of a model without dense layers", lora_of(3).check(sparse));
  CHECK_THROWS("INVALID_OPTION", "weights: 5 of", Adaptation(config_of(true, 0), lora_of(0), std::vector<float>(5)));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
