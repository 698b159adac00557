// Autoregressive checkpoints: the float32 reference's tokens, and the same bits whatever runs beside a request.
#include <cstdio>
#include <random>

#include "check.h"
#include "golden_cases.h"
#include "harness.h"
#include "reference_backend.h"

using namespace sdar;
using nlohmann::json;

namespace {

const char kParent[] = "models/qwen3-nano";

std::string folder_of(const std::string& name) { return name == "shipped-parent" ? kParent : "test/golden/" + name; }

Request request_of(const json& c) {
  Request r;
  r.tokens = c["tokens"].get<std::vector<int32_t>>();
  r.max_tokens = c["max_tokens"];
  return r;
}

/// Requests of different lengths and ways to sample; some repeat the beginning of others.
std::vector<Request> mixed(int count) {
  std::vector<Request> all;
  for (int i = 0; i < count; i++) {
    std::mt19937 random(static_cast<uint32_t>(i % 5));
    Request r;
    const int length = i % 8 == 3 ? 128 : 1 + i * 41 % (i % 8 == 5 ? 170 : 70);
    for (int k = 0; k < length; k++) r.tokens.push_back(static_cast<int32_t>(random() % 550));
    r.max_tokens = 12 + i % 8;
    r.temperature = i % 2 ? 0.4f + 0.3f * float(i % 4) : 0;
    r.top_k = i % 5 == 1 ? 3 + i : 0;
    r.top_p = i % 3 ? 0.9f : 1;
    r.min_p = i % 5 ? 0 : 0.1f;
    r.seed = 100 + uint64_t(i);
    r.completion = i % 3;
    r.ignore_eos = i % 3 != 0;
    r.min_tokens = i % 6;
    r.stop_tokens = {7, 300};
    if (i % 8 == 2) r.bias_ids = {5, 77}, r.bias_values = {4.0f, -3.0f};
    all.push_back(r);
  }
  return all;
}

}  // namespace

TEST("the reference's tokens and log probabilities in every instruction set") {
  for (const std::string name : {"tiny-ar", "tiny-ar-tied", "tiny-ar-moe", "qwen3-nano", "shipped-parent"}) {
    const json cases = golden::cases(name);
    for (const std::string& isa : harness::instruction_sets()) {
      harness::Runner runner({.path = folder_of(name), .weights = WeightFormat::f32, .threads = 2, .isa = isa});
      std::vector<Request> requests;
      for (const json& c : cases) requests.push_back(request_of(c));
      const auto results = runner.run(requests);
      for (size_t i = 0; i < results.size(); i++) {
        const json& c = cases[i];
        const auto output = c["output"].get<std::vector<int32_t>>();
        CHECK(results[i].tokens.size() == output.size() && results[i].forwards == int(output.size()));
        CHECK(results[i].reason == (c["finish"] == "end" ? 0 : 2));
        for (size_t k = 0; k < std::min(output.size(), results[i].tokens.size()); k++) {
          CHECK(results[i].tokens[k].id == output[k]);
          CHECK_NEAR(results[i].tokens[k].logprob, c["logprobs"][k].get<double>(), 1e-4);
        }
      }
      std::printf("# %s: %zu cases in %s\n", name.c_str(), results.size(), isa.c_str());
    }
  }
}

TEST("the reference's logits of the last row of a prompt") {
  for (const std::string name : {"tiny-ar", "tiny-ar-tied", "tiny-ar-moe", "qwen3-nano"}) {
    for (const std::string& isa : harness::instruction_sets()) {
      auto model = load_model({.path = folder_of(name), .weights = WeightFormat::f32, .isa = isa}, {});
      const std::vector<int32_t> pages{5, 3, 4, 0, 1, 2, 7, 6};
      for (const json& c : golden::cases(name)) {
        const auto ids = c["tokens"].get<std::vector<int32_t>>();
        if (ids.size() > pages.size() * kPageSlots) continue;
        std::vector<float> logits(static_cast<size_t>(model->config.shape.vocabulary));
        const SamplingParams greedy{.denoise = {.steps = 1}};
        Step step;
        step.add({.segment = {.rows = int(ids.size()), .position = 0, .block_length = 1, .pages = pages.data()},
                  .ids = ids.data(),
                  .denoise = true,
                  .window = 1,
                  .ahead = 1,
                  .masked = 1,
                  .sampling = &greedy});
        step.logits = logits.data();
        const SequenceResult& result = model->backend->run(step)[0];
        const json& f = c["first_logits"];
        const auto of = [](const json& value) { return value.is_array() ? value[0] : value; };
        const double scale = std::max(1.0, std::abs(of(f["max"]).get<double>()));
        CHECK(result.filled == 1 && result.at[0].token == of(f["argmax"]).get<int>());
        CHECK_NEAR(result.at[0].max, of(f["max"]).get<double>(), 1e-4 * scale);
        CHECK_NEAR(result.at[0].logsumexp, of(f["logsumexp"]).get<double>(), 1e-4 * scale);
        const json& head = f["head"][0].is_array() ? f["head"][0] : f["head"];
        for (size_t v = 0; v < head.size(); v++) CHECK_NEAR(logits[v], head[v].get<double>(), 1e-4 * scale);
      }
    }
  }
}

TEST("a request gives the same bits alone and among others, with 1, 2 and 3 threads, in every instruction set") {
  const auto requests = mixed(harness::full_or(33, 17));
  for (const std::string& isa : harness::instruction_sets()) {
    for (WeightFormat weights : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8}) {
      if (harness::quick() && weights != WeightFormat::bf16) continue;
      std::vector<harness::Result> alone;
      for (int threads : {1, 2, 3}) {
        EngineOptions options{.path = kParent, .weights = weights, .threads = threads, .isa = isa};
        options.prefill_rows = 512;
        harness::Runner runner(options);
        if (alone.empty())
          for (const Request& r : requests) alone.push_back(runner.run({r})[0]);
        const auto together = runner.run(requests);
        for (size_t i = 0; i < requests.size(); i++) {
          CHECK(alone[i].ends == 1 && alone[i].reason >= 0);
          if (!together[i].same(alone[i]))
            check::fail(__FILE__, __LINE__, "request " + std::to_string(i) + " differs: " + isa);
        }
        if (isa == "portable") break;
      }
    }
  }
}

TEST("prompts in chunks and prefixes that are found again give the same bits") {
  const auto requests = mixed(17);
  EngineOptions options{.path = kParent, .weights = WeightFormat::bf16, .threads = 2};
  options.prefix_cache = false;
  const auto plain = harness::Runner(options).run(requests);
  const auto compare = [&](const EngineOptions& changed, const char* what) {
    harness::Runner runner(changed);
    for (int round = 0; round < 2; round++) {
      const auto results = runner.run(requests);
      for (size_t i = 0; i < requests.size(); i++) {
        if (!results[i].same(plain[i])) check::fail(__FILE__, __LINE__, std::to_string(i) + " differs with " + what);
      }
      // All of a prompt in whole pages is there, but its last token must be computed.
      if (round == 1 && changed.prefix_cache) CHECK(results[3].cached_tokens == 64);
    }
    runner.engine().close();
    harness::check_pages(runner.engine().stats());
  };
  compare(options, "the same");
  EngineOptions chunks = options;
  chunks.prefill_rows = 24, chunks.max_rows = 40;
  compare(chunks, "prompts in chunks");
  EngineOptions cached = options;
  cached.prefix_cache = true;
  compare(cached, "a prefix cache");
}

TEST("requests that are preempted and resumed give the tokens of an undisturbed run") {
  std::vector<Request> requests = mixed(12);
  for (Request& r : requests) r.ignore_eos = true, r.stop_tokens.clear(), r.max_tokens = 90;
  EngineOptions options{.path = kParent, .weights = WeightFormat::int8, .threads = 2};
  const auto expected = harness::Runner(options).run(requests);
  options.kv_tokens = 9 * 64;
  harness::Runner runner(options);
  const auto results = runner.run(requests);
  int preempted = 0;
  for (size_t i = 0; i < requests.size(); i++) {
    CHECK(results[i].same(expected[i]));
    preempted += results[i].preempted;
  }
  CHECK(preempted > 0 && runner.engine().stats().recomputed_tokens > 0);
  runner.engine().close();
  harness::check_pages(runner.engine().stats());
}

TEST("maxTokens and the context bound a generation; blocks are refused") {
  harness::Runner runner({.path = kParent, .threads = 2});
  Request r = mixed(1)[0];
  r.ignore_eos = true;
  r.tokens.assign(1020, 5);
  r.max_tokens = 50;
  auto result = runner.run({r})[0];
  CHECK(result.tokens.size() == 4 && result.reason == 2 && result.tokens[3].position == 1023);
  r.tokens.resize(1024);
  CHECK_THROWS("PROMPT_TOO_LONG", "1024", runner.submit(r));
  r.tokens.resize(3);
  r.block_length = 4;
  CHECK_THROWS("INVALID_OPTION", "blockLength", runner.submit(r));
  r.block_length = 0, r.drafts = true;
  CHECK_THROWS("INVALID_OPTION", "drafts", runner.submit(r));
}

TEST("frequencies: those of transformers") {
  const auto compare = [](const ModelShape& shape, const std::vector<std::pair<int, double>>& expected) {
    const std::vector<float> found = inverse_frequencies(shape);
    CHECK(int(found.size()) == shape.head_dim / 2);
    for (const auto& [i, value] : expected) CHECK_NEAR(found[i] / value, 1, 2e-6);
  };
  ModelShape shape{.head_dim = 128, .rope_theta = 1e6f};
  compare(shape, {{0, 1}, {10, 0.11547820270061493}, {63, 4 * 3.102344408034696e-07}});
  shape.rope_scaling = {.kind = RopeScaling::Kind::yarn, .factor = 4, .original_context = 32768};
  compare(shape, {{0, 1.0},
                  {10, 0.11547820270061493},
                  {20, 0.01333521492779255},
                  {24, 0.005375321488827467},
                  {30, 0.001064361073076725},
                  {36, 0.00017984118312597275},
                  {40, 4.4456985051510856e-05},
                  {50, 5.133812464919174e-06},
                  {63, 3.102344408034696e-07}});
  shape = {.head_dim = 16, .rope_theta = 1e4f};
  shape.rope_scaling = {.kind = RopeScaling::Kind::yarn, .factor = 2.5, .original_context = 100, .truncate = false};
  compare(shape, {{0, 1},
                  {1, 0.23729056119918823},
                  {2, 0.050075724720954895},
                  {3, 0.012649111449718475},
                  {7, 0.0001264911115868017}});
  shape.rope_scaling = {.kind = RopeScaling::Kind::linear, .factor = 2};
  compare(shape, {{0, 0.5}, {4, 0.005}});
}

TEST("biases of projections and scaled angles against the formula, in every instruction set") {
  oracle::Random random(3);
  for (const std::string& isa : cpu::instruction_sets()) {
    ModelShape shape = oracle::shape_of(24, 4, 2, 16);
    shape.attention_bias = true;
    shape.rope_theta = 1e4f;
    shape.rope_scaling = {
        .kind = RopeScaling::Kind::yarn, .factor = 4, .attention_factor = 1.25, .original_context = 64};
    const int positions = 70, q = 4 * 16, kv = 2 * 16, width = q + 2 * kv;
    const auto backend = cpu::make_backend({.threads = 2, .isa = isa});
    backend->configure_ops(shape, {4, KvFormat::f32}, 128);
    const auto norm = random.floats(16, 0.5, 2), bias = random.floats(width), o_bias = random.floats(24);
    const oracle::Matrix qkv = oracle::random_matrix(random, positions, width);
    oracle::Matrix shifted = qkv;
    for (size_t i = 0; i < shifted.data.size(); i++) shifted.data[i] += bias[i % width];
    const auto part = [&](int from, int n) { return std::vector(bias.begin() + from, bias.begin() + from + n); };
    const oracle::Held held_norm = oracle::hold_vector(*backend, norm),
                       q_bias = oracle::hold_vector(*backend, part(0, q)),
                       k_bias = oracle::hold_vector(*backend, part(q, kv)),
                       v_bias = oracle::hold_vector(*backend, part(q + kv, kv)),
                       held_o = oracle::hold_vector(*backend, o_bias);
    const int32_t pages[] = {2, 0};
    const Segment segment{.rows = positions, .block_length = 1, .pages = pages};
    std::vector<float> in = qkv.data, out(static_cast<size_t>(positions) * q, NAN);
    backend->begin_step({.segments = {&segment, 1}, .rows = positions});
    backend->attention({.qkv = in.data(),
                        .out = out.data(),
                        .q_norm = held_norm,
                        .k_norm = held_norm,
                        .q_bias = q_bias,
                        .k_bias = k_bias,
                        .v_bias = v_bias});
    const oracle::Matrix expected = oracle::attention(shifted, shape, 1, KvFormat::f32, norm, norm);
    CHECK_NEAR(oracle::relative_error(out, expected.data), 0, 2e-5);

    const oracle::Matrix w = oracle::random_matrix(random, 24, q);
    const oracle::Held held_w = oracle::hold(*backend, WeightKind::linear, WeightFormat::f32, {w});
    std::vector<float> x(static_cast<size_t>(positions) * 24, 0.5f);
    backend->linear_add({.in = out.data(), .m = positions, .weight = held_w, .bias = held_o, .x = x.data()});
    oracle::Matrix sum = oracle::product({positions, q, out}, w);
    for (size_t i = 0; i < sum.data.size(); i++) sum.data[i] += 0.5f + o_bias[i % 24];
    CHECK_NEAR(oracle::relative_error(x, sum.data), 0, 1e-5);
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
