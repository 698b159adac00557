// Weights as they are loaded: in every format, from files and at random, with progress, threads and cancellation.
#include "model/weights.h"

#include <cmath>
#include <cstring>

#include "check.h"
#include "loading.h"
#include "util/error.h"

using files::find;
using loading::floats;
using loading::load;
using loading::row;
using loading::whole;
using namespace sdar;

TEST("the shipped model and the golden checkpoints load in every format") {
  for (const char* folder : {"models/sdar-nano", "test/golden/tiny-dense", "test/golden/tiny-f16-sharded",
                             "test/golden/tiny-tied", "test/golden/tiny-moe"})
    for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4})
      CHECK(whole(load(folder, format)));
  const ModelWeights nano = load("models/sdar-nano");
  CHECK(nano.parameters == 4276224 && !nano.lm_head && nano.layers.size() == 6);
  const size_t plain = 4 * static_cast<size_t>(nano.parameters);
  CHECK(nano.bytes >= plain && nano.bytes < plain + (1 << 16));
  const ModelWeights moe = load("test/golden/tiny-moe", WeightFormat::int4);
  CHECK(moe.lm_head && moe.layers[2].expert_gate_up_views.size() == 8 && moe.layers[2].expert_down_views.size() == 8);
  CHECK(moe.layers[0].router->spec.format == WeightFormat::f32 && !moe.layers[0].gate_up);
  CHECK(moe.embedding->spec.format == WeightFormat::int8 && moe.lm_head->spec.format == WeightFormat::int8);
  CHECK(moe.layers[0].qkv->spec.format == WeightFormat::int4);
}

TEST("tensors arrive where they belong") {
  files::TinyFolder folder;
  auto tensors = files::tiny_tensors();
  const ModelWeights w = load(folder.path);
  const LayerWeights& layer = w.layers[1];
  const std::string at = "model.layers.1.";
  for (int i = 0; i < 8; i++) CHECK(row(*layer.qkv, i) == floats(find(tensors, at + "self_attn.q_proj.weight"), i, 8));
  for (int i = 0; i < 4; i++) {
    CHECK(row(*layer.qkv, 8 + i) == floats(find(tensors, at + "self_attn.k_proj.weight"), i, 8));
    CHECK(row(*layer.qkv, 12 + i) == floats(find(tensors, at + "self_attn.v_proj.weight"), i, 8));
  }
  for (int i = 0; i < 12; i++) {
    CHECK(row(*layer.gate_up, i) == floats(find(tensors, at + "mlp.gate_proj.weight"), i, 8));
    CHECK(row(*layer.gate_up, 12 + i) == floats(find(tensors, at + "mlp.up_proj.weight"), i, 8));
  }
  for (int i = 0; i < 8; i++) {
    CHECK(row(*layer.down, i) == floats(find(tensors, at + "mlp.down_proj.weight"), i, 12));
    CHECK(row(*layer.o, i) == floats(find(tensors, at + "self_attn.o_proj.weight"), i, 8));
  }
  CHECK(row(*layer.input_norm, 0) == floats(find(tensors, at + "input_layernorm.weight"), 0, 8));
  CHECK(row(*layer.post_norm, 0) == floats(find(tensors, at + "post_attention_layernorm.weight"), 0, 8));
  CHECK(row(*layer.q_norm, 0) == floats(find(tensors, at + "self_attn.q_norm.weight"), 0, 4));
  CHECK(row(*layer.k_norm, 0) == floats(find(tensors, at + "self_attn.k_norm.weight"), 0, 4));
  CHECK(row(*w.embedding, 15) == floats(find(tensors, "model.embed_tokens.weight"), 15, 8));
  CHECK(row(*w.lm_head, 15) == floats(find(tensors, "lm_head.weight"), 15, 8));
  CHECK(row(*w.final_norm, 0) == floats(find(tensors, "model.norm.weight"), 0, 8));
  CHECK(w.layers[0].qkv->spec.rows == 16 && w.layers[0].gate_up->spec.rows == 24);
}

namespace {

constexpr int64_t kManyTokens = 1 << 19;  // × 8 × 4 bytes: 16 MiB twice, so that a load takes many jobs

struct LargeFolder : files::TinyFolder {
  LargeFolder() {
    auto members = files::tiny_config();
    members["vocab_size"] = std::to_string(kManyTokens);
    config(members);
    model(files::tiny_tensors(kManyTokens));
  }
};

}  // namespace

TEST("progress rises from 0 to the whole, on the calling thread") {
  LargeFolder folder;
  for (const int threads : {1, 3}) {
    std::vector<int64_t> seen;
    int64_t total = 0;
    load(folder.path, WeightFormat::bf16,
         {.progress = [&](int64_t done, int64_t all) { seen.push_back(done), total = all; }, .threads = threads});
    CHECK(seen.size() > 3 && seen.front() == 0 && seen.back() == total);
    CHECK(total > 2 * kManyTokens * 8 * 4);
    for (size_t i = 1; i < seen.size(); i++) CHECK(seen[i] > seen[i - 1]);
  }
}

TEST("the packed bytes do not depend on the threads") {
  LargeFolder folder;
  const ModelWeights one = load(folder.path, WeightFormat::int8, {.threads = 1});
  const ModelWeights three = load(folder.path, WeightFormat::int8, {.threads = 3});
  CHECK(one.bytes == three.bytes && std::memcmp(one.memory.get(), three.memory.get(), one.bytes) == 0);
}

TEST("loading can be cancelled at any moment") {
  LargeFolder folder;
  for (int after = 0; after < 12; after++) {
    int asked = 0;
    CHECK_THROWS("ABORTED", "cancelled",
                 load(folder.path, WeightFormat::bf16, {.cancelled = [&] { return asked++ == after; }, .threads = 2}));
  }
}

TEST("what the progress hook throws comes out") {
  LargeFolder folder;
  CHECK_THROWS("INTERNAL", "hook", load(folder.path, WeightFormat::f32, {.progress = [](int64_t done, int64_t) {
                                          if (done > 0) throw Error(code::kInternal, "hook");
                                        }}));
}

TEST("a file truncated in the middle of a load") {
  for (const int threads : {1, 2})
    for (const size_t left : {size_t{0}, size_t{4096}, size_t{20} << 20}) {
      LargeFolder folder;
      bool cut = false;
      CHECK_THROWS("CHECKPOINT_TRUNCATED", "model.safetensors: was truncated while it was in use",
                   load(folder.path, WeightFormat::bf16,
                        {.progress =
                             [&](int64_t done, int64_t) {
                               if (done > 0 && !cut) std::filesystem::resize_file(folder / "model.safetensors", left);
                               cut = cut || done > 0;
                             },
                         .threads = threads}));
      CHECK(cut);
    }
}

TEST("random weights: seeded, spread as asked, independent of threads") {
  const auto backend = cpu::make_reference_backend(1);
  const ModelConfig config = read_config("models/sdar-nano");
  const ModelWeights a = random_weights(*backend, config, WeightFormat::f32, 5, {.threads = 1});
  const ModelWeights b = random_weights(*backend, config, WeightFormat::f32, 5, {.threads = 3});
  const ModelWeights c = random_weights(*backend, config, WeightFormat::f32, 6);
  CHECK(whole(a) && a.parameters == 4276224);
  CHECK(std::memcmp(a.memory.get(), b.memory.get(), a.bytes) == 0);
  CHECK(std::memcmp(a.memory.get(), c.memory.get(), a.bytes) != 0);
  CHECK(row(*a.layers[0].qkv, 0) != row(*a.layers[1].qkv, 0));
  double sum = 0, squares = 0;
  for (int i = 0; i < 560; i++)
    for (const float v : row(*a.embedding, i)) sum += v, squares += v * v;
  const double n = 560 * 256;
  CHECK_NEAR(sum / n, 0, 3e-4);
  CHECK_NEAR(std::sqrt(squares / n), 0.02, 2e-4);
  for (const float v : row(*a.final_norm, 0)) CHECK(std::abs(v - 1) < 0.1);
  CHECK(whole(random_weights(*backend, read_config("test/golden/tiny-moe"), WeightFormat::int8, 1)));
}

TEST("a shape that no machine can hold") {
  const auto backend = cpu::make_reference_backend(1);
  ModelConfig config = read_config("models/sdar-nano");
  config.shape.vocabulary = 1 << 28;
  config.shape.hidden = 1 << 20;
  CHECK_THROWS("OUT_OF_MEMORY", "the weights take", random_weights(*backend, config, WeightFormat::bf16, 1));
}

int main(int c, char** v) { return check::run(c, v); }
