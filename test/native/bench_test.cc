// What the measuring side is made of: named shapes, written checkpoints, forwards on demand, limits of the machine.
#include <filesystem>
#include <fstream>

#include "backend/cpu/cpu.h"
#include "bench/forward_bench.h"
#include "bench/shapes.h"
#include "check.h"

using namespace sdar;
namespace fs = std::filesystem;

namespace {

/// A folder that goes when the test ends.
struct Scratch {
  fs::path path;
  Scratch() {
    std::string name = (fs::temp_directory_path() / "sdar-bench-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

BenchOptions nano(WeightFormat weights, int32_t context, int32_t max_tokens) {
  BenchOptions options;
  options.engine.weights = weights;
  options.engine.threads = 2;
  options.shape = "sdar-nano";
  options.layers = 2;
  options.context = context;
  options.max_tokens = max_tokens;
  return options;
}

void check_same_settings(const ModelConfig& a, const ModelConfig& b) {
  const ModelShape &s = a.shape, &t = b.shape;
  CHECK(s.layers == t.layers && s.hidden == t.hidden && s.intermediate == t.intermediate);
  CHECK(s.heads == t.heads && s.kv_heads == t.kv_heads && s.head_dim == t.head_dim);
  CHECK(s.vocabulary == t.vocabulary && s.context == t.context);
  CHECK(s.attention_bias == t.attention_bias);
  CHECK(s.experts == t.experts && s.experts_per_token == t.experts_per_token);
  CHECK(s.moe_intermediate == t.moe_intermediate);
  CHECK(s.rms_eps == t.rms_eps && s.rope_theta == t.rope_theta);
  CHECK(a.model_type == b.model_type && a.tied == b.tied && a.block_size == b.block_size);
  CHECK(a.mask_token_id == b.mask_token_id && a.end_token_ids == b.end_token_ids);
  CHECK(a.norm_topk_prob == b.norm_topk_prob && a.sparse == b.sparse);
}

/// A mixture of experts small enough for a test.
ModelConfig tiny_moe() {
  ModelConfig config = shape_config("sdar-30b-a3b", 2);
  ModelShape& s = config.shape;
  s.attention_bias = true;
  s.hidden = 64, s.heads = 4, s.kv_heads = 2, s.head_dim = 16, s.vocabulary = 300, s.context = 256;
  s.experts = 4, s.experts_per_token = 2, s.moe_intermediate = 48;
  config.mask_token_id = 299;
  config.end_token_ids = {7};
  return config;
}

/// Logits of the same forward by a model of that folder, and by one with random weights.
void check_same_weights(const std::string& folder, BenchOptions options) {
  const RecordedStep step{.tokens = {5, 6, 7, 8, 9, 559, 559, 10}, .block_length = 4, .masked = 6};
  ForwardBench random(options, {});
  options.shape.clear();
  options.engine.path = folder;
  ForwardBench loaded(options, {});
  CHECK(random.model().weights.parameters == loaded.model().weights.parameters);
  CHECK(random.logits(step) == loaded.logits(step));
}

}  // namespace

TEST("shapes: the published models; unknown names and layers are refused") {
  CHECK(shape_names().size() == 5);
  for (const std::string& name : shape_names()) {
    const ModelConfig config = shape_config(name);
    CHECK(static_cast<int32_t>(config.sparse.size()) == config.shape.layers);
    CHECK(config.mask_token_id < config.shape.vocabulary);
  }
  check_same_settings(shape_config("sdar-nano"), read_config("models/sdar-nano"));
  CHECK(shape_config("sdar-1.7b", 8).shape.layers == 8);
  CHECK(shape_config("sdar-1.7b").shape.layers == 28);
  CHECK_THROWS("INVALID_OPTION", "sdar-nano, sdar-1.7b, sdar-4b, sdar-8b, sdar-30b-a3b", shape_config("sdar-2b"));
  CHECK_THROWS("INVALID_OPTION", "1 to 28", shape_config("sdar-1.7b", 29));
  CHECK_THROWS("INVALID_OPTION", "1 to 6", shape_config("sdar-nano", -1));
}

TEST("write_checkpoint: settings and weights are those of the shape and seed, in one file and in shards") {
  const Scratch scratch;
  const std::string whole = scratch.path / "whole", split = scratch.path / "split", wide = scratch.path / "wide";
  BenchOptions options = nano(WeightFormat::f32, 0, 64);
  options.seed = 7;
  const ModelConfig config = shape_config("sdar-nano", 2);
  const WrittenCheckpoint one = write_checkpoint(whole, config, {.seed = 7});
  CHECK(one.files == 1 && one.bytes == 2 * one.parameters);
  check_same_settings(read_config(whole), config);
  check_same_weights(whole, options);

  WeightHooks hooks;
  hooks.threads = 2;
  int64_t last = 0, of = 0;
  hooks.progress = [&](int64_t done, int64_t total) {
    CHECK(done >= last && done <= total);
    last = done, of = total;
  };
  const WrittenCheckpoint many = write_checkpoint(split, config, {.seed = 7, .shard_bytes = 400'000}, hooks);
  CHECK(many.files > 2 && many.parameters == one.parameters && last == of && of == many.bytes);
  CHECK(fs::exists(fs::path(split) / "model.safetensors.index.json"));
  check_same_weights(split, options);

  CHECK(write_checkpoint(wide, config, {.dtype = DType::f32, .seed = 7}).bytes == 4 * one.parameters);
  check_same_weights(wide, options);
}

TEST("write_checkpoint: a mixture of experts can be loaded") {
  const Scratch scratch;
  const std::string folder = scratch.path / "moe";
  const ModelConfig config = tiny_moe();
  write_checkpoint(folder, config, {});
  check_same_settings(read_config(folder), config);
  BenchOptions options;
  options.engine.path = folder;
  options.engine.weights = WeightFormat::f32;
  options.context = 16;
  options.max_tokens = 8;
  ForwardBench bench(options, {});
  CHECK(bench.run(8, 16, true) > 0);
  // One token meets half of the experts; many meet all.
  CHECK(bench.cost(1, 0).weight_bytes < 0.9 * bench.cost(8, 0).weight_bytes);
  // Those that were read are counted once it has run.
  const double expected = bench.cost(4, 0).experts_per_layer, top_k = config.shape.experts_per_token;
  bench.run(1, 0, false), bench.run(4, 0, false);
  CHECK(bench.cost(1, 0).experts_per_layer == top_k);
  const double read = bench.cost(4, 0).experts_per_layer;
  CHECK(expected > top_k && read >= top_k && read <= config.shape.experts && std::floor(2 * read) == 2 * read);
}

TEST("write_checkpoint: replaces nothing unless asked, and only a checkpoint; leaves nothing half done") {
  const Scratch scratch;
  const fs::path folder = scratch.path / "model";
  const ModelConfig config = shape_config("sdar-nano", 1);
  fs::create_directories(folder);  // an empty folder may be filled
  write_checkpoint(folder.string() + "/", config, {});
  CHECK(fs::exists(folder / "model.safetensors"));
  CHECK_THROWS("INVALID_OPTION", "holds a checkpoint already", write_checkpoint(folder, config, {}));
  write_checkpoint(folder, shape_config("sdar-nano", 2), {.overwrite = true});
  CHECK(read_config(folder).shape.layers == 2);

  WeightHooks stop;
  stop.cancelled = [] { return true; };
  CHECK_THROWS("ABORTED", "cancelled", write_checkpoint(folder, config, {.overwrite = true}, stop));
  CHECK(read_config(folder).shape.layers == 2);

  const fs::path other = scratch.path / "notes";
  fs::create_directories(other);
  std::ofstream(other / "text") << "mine";
  CHECK_THROWS("INVALID_OPTION", "something else", write_checkpoint(other, config, {.overwrite = true}));
  CHECK_THROWS("INVALID_OPTION", "no folder", write_checkpoint(other / "text", config, {.overwrite = true}));
  CHECK_THROWS("FILE_UNWRITABLE", "cannot be written", write_checkpoint(other / "text" / "x", config, {}));
  CHECK_THROWS("INVALID_OPTION", "bf16, f32", write_checkpoint(other / "x", config, {.dtype = DType::f16}));
  size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(scratch.path)) entries++;
  CHECK(entries == 2);
}

TEST("forwards: any number of tokens behind any context") {
  for (const int32_t context : {0, 1, 40, 256}) {
    ForwardBench bench(nano(WeightFormat::f32, context, 130), {});
    for (const int32_t tokens : {1, 3, 8, 64, 100, 130})
      CHECK(bench.run(tokens, context / (1 + tokens % 2), tokens % 3 == 0) > 0);
    CHECK_THROWS("INVALID_OPTION", "1 to 130", bench.run(131, 0, false));
    CHECK_THROWS("INVALID_OPTION", "1 to 130", bench.run(0, 0, false));
    CHECK_THROWS("INVALID_OPTION", "context", bench.run(1, context + 1, false));
  }
  CHECK_THROWS("PROMPT_TOO_LONG", "1024", ForwardBench(nano(WeightFormat::f32, 1000, 64), {}));
  CHECK_THROWS("INVALID_OPTION", "context", ForwardBench(nano(WeightFormat::f32, -1, 64), {}));
}

TEST("cost of a forward: bytes and operations of a known shape") {
  ForwardBench bench(nano(WeightFormat::bf16, 64, 16), {});
  // Elements of two layers: qkv, o, gate and up, down; of the tied head.
  const double layers = 2 * (512.0 * 256 + 256 * 256 + 3 * 640 * 256), head = 560.0 * 256;
  const ForwardCost one = bench.cost(1, 64), many = bench.cost(16, 64);
  CHECK_NEAR(one.weight_bytes, 2 * (layers + head), 0.1 * one.weight_bytes);
  CHECK(one.weight_bytes == many.weight_bytes);
  CHECK_NEAR(many.operations, 32 * (layers + head + 2 * 2 * 4 * 64 * 80), 1);
  CHECK_NEAR(one.operations, 2 * (layers + head + 2 * 2 * 4 * 64 * 65), 1);
  CHECK(bench.cost(1, 0).kv_bytes < one.kv_bytes && bench.cost(1, 0).weight_bytes == one.weight_bytes);
  CHECK(one.kv_bytes >= 65 * 2 * 2 * 2 * 64 * 2);
}

TEST("divergence: nothing from itself, something from a coarser format") {
  const std::vector<RecordedStep> steps = {
      {.tokens = {1, 2, 3, 4, 559, 559, 559, 559}, .block_length = 4, .masked = 15},
      {.tokens = {9, 8, 7, 6, 5, 559}, .block_length = 3, .masked = 4},
  };
  ForwardBench exact(nano(WeightFormat::f32, 0, 16), {}), again(nano(WeightFormat::f32, 0, 16), {});
  const Divergence none = exact.compare(again, steps);
  CHECK(none.positions == 5 && none.same_argmax == 5 && none.kl == 0);
  ForwardBench coarse(nano(WeightFormat::int4, 0, 16), {});
  const Divergence some = exact.compare(coarse, steps);
  CHECK(some.positions == 5 && some.kl > 1e-7 && some.kl < 5);

  CHECK_THROWS("INVALID_OPTION", "masks no position", exact.logits({.tokens = {1, 2}, .block_length = 2, .masked = 0}));
  CHECK_THROWS("INVALID_OPTION", "beyond its block", exact.logits({.tokens = {1, 2}, .block_length = 2, .masked = 4}));
  CHECK_THROWS("INVALID_OPTION", "whole blocks", exact.logits({.tokens = {1, 2, 3}, .block_length = 2, .masked = 1}));
  CHECK_THROWS("TOKEN_OUT_OF_RANGE", "0 to 559", exact.logits({.tokens = {560}, .block_length = 1, .masked = 1}));
}

TEST("logits of a step do not depend on the steps before it") {
  const std::vector<RecordedStep> steps = {
      {.tokens = {1, 2, 3, 4, 559, 559, 559, 559}, .block_length = 4, .masked = 15},
      {.tokens = {1, 2, 3, 4, 5, 559, 7, 559}, .block_length = 4, .masked = 10},
      {.tokens = {1, 2, 3, 4, 5, 6, 7, 8, 559, 559, 559, 559}, .block_length = 4, .masked = 15},
      {.tokens = {1, 2, 3, 9, 5, 6, 7, 8, 559, 559, 559, 559}, .block_length = 4, .masked = 15},
      {.tokens = {1, 2, 3, 9, 5, 559}, .block_length = 2, .masked = 2},
      {.tokens = {1, 559}, .block_length = 2, .masked = 2},
  };
  ForwardBench used(nano(WeightFormat::bf16, 64, 16), {});
  for (const RecordedStep& step : steps) {
    ForwardBench fresh(nano(WeightFormat::bf16, 64, 16), {});
    CHECK(used.logits(step) == fresh.logits(step));
    used.run(3, 64, false);
    CHECK(used.logits(step) == fresh.logits(step));
    CHECK(used.logits(step) == fresh.logits(step));
  }
}

TEST("limits: every instruction set of this machine has rates of all formats") {
  for (const std::string& isa : cpu::instruction_sets()) {
    const auto probe = make_limit_probe(2, isa);
    CHECK(probe->read_bandwidth() > 0);
    for (const WeightFormat f : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      CHECK(probe->multiply_rate(f) > 0);
      CHECK(*probe->multiply_instruction(f) != 0);
    }
    std::printf("# %s: int8 weights are multiplied with %s\n", isa.c_str(),
                probe->multiply_instruction(WeightFormat::int8));
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
