// The step loop: same results whatever runs beside a request, every request ends exactly once, pages come back.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "check.h"
#include "harness.h"

using sdar::EngineOptions;
using sdar::Request;
using sdar::Strategy;
using sdar::WeightFormat;

namespace {

const char kNano[] = "models/sdar-nano";

Request prompt_of(int length, uint32_t seed = 1) {
  std::mt19937 random(seed);
  Request r;
  for (int i = 0; i < length; i++) r.tokens.push_back(int32_t(random() % 550));
  r.max_tokens = 24;
  r.ignore_eos = true;
  return r;
}

/// As many as share a step where code is fast.
int crowd() { return harness::quick() ? 17 : 33; }

/// Requests of different lengths, strategies, block lengths and temperatures.
std::vector<Request> mixed(int count) {
  std::vector<Request> all;
  const int blocks[] = {8, 4, 16, 1, 3, harness::quick() ? 12 : 64, 5, 8};
  for (int i = 0; i < count; i++) {
    Request r = prompt_of(1 + i * 37 % (i % 8 == 5 ? 150 : 60), 100 + i);
    r.max_tokens = 20 + i % 8;
    r.block_length = blocks[i % 8];
    r.denoise.strategy = static_cast<Strategy>(i % sdar::kStrategies);
    r.denoise.threshold = 0.95f;
    r.denoise.steps = r.block_length == 64 ? 24 : i % 3 == 0 ? 2 : 0;
    r.denoise.entropy_bound = 0.2f * float(i % 3);
    r.denoise.factor = 0.1f * float(i % 4);
    if (i % 2) {
      r.temperature = 0.4f + 0.2f * float(i % 4);
      r.top_k = i % 5 == 0 ? 0 : 3 + i;
      r.top_p = i % 7 == 0 ? 1.0f : 0.8f;
      r.min_p = i % 11 == 0 ? 0.1f : 0;
      r.confidence = i % 4 == 1 ? sdar::Confidence::sampled : sdar::Confidence::model;
    }
    r.seed = 1000 + i;
    r.ignore_eos = i % 3 != 0;
    r.min_tokens = i % 6;
    if (i % 8 == 2) r.bias_ids = {5, 77}, r.bias_values = {4.0f, -3.0f};
    all.push_back(r);
  }
  return all;
}

}  // namespace

TEST("a request gives the same bits alone and among 32 others, with 1, 2 and 3 threads, in every instruction set") {
  const auto requests = mixed(crowd());
  for (const std::string& isa : harness::instruction_sets()) {
    for (WeightFormat weights : {WeightFormat::f32, WeightFormat::bf16}) {
      if (harness::quick() && weights == WeightFormat::f32) continue;
      std::vector<harness::Result> alone;
      for (int threads : {1, 2, 3}) {
        if (harness::quick() && threads == 2) continue;
        EngineOptions options{.path = kNano, .weights = weights, .threads = threads, .isa = isa};
        options.prefill_rows = 512;  // all enter at once, however slow steps are here
        harness::Runner runner(options);
        if (alone.empty())
          for (const Request& r : requests) alone.push_back(runner.run({r})[0]);
        const auto before = runner.engine().stats();
        const auto together = runner.run(requests);
        const auto after = runner.engine().stats();
        for (size_t i = 0; i < requests.size(); i++) {
          CHECK(alone[i].ends == 1 && alone[i].reason >= 0);
          if (!together[i].same(alone[i]))
            check::fail(__FILE__, __LINE__,
                        "request " + std::to_string(i) + " differs: " + isa + ", " + sdar::name_of(weights) + ", " +
                            std::to_string(threads) + " threads");
        }
        CHECK(after.max_sequences >= crowd() / 2);
        const double mean = double(after.sequences - before.sequences) / double(after.steps - before.steps);
        CHECK(mean >= crowd() / 2);
        if (isa == "portable") break;  // plain loops use one thread
      }
    }
    std::printf("# same bits in %s\n", isa.c_str());
  }
}

TEST("prompts taken in small chunks give the same bits") {
  const Request r = prompt_of(333);
  EngineOptions options{.path = kNano, .weights = WeightFormat::bf16, .threads = 2};
  const auto whole = harness::Runner(options).run({r})[0];
  for (int32_t rows : {64, 72, 200}) {
    options.prefill_rows = rows;
    options.max_rows = 2 * 64 + rows;
    CHECK(harness::Runner(options).run({r})[0].same(whole));
  }
}

TEST("a step that cannot hold every sequence takes turns and changes nothing") {
  const auto requests = mixed(crowd());
  EngineOptions options{.path = kNano, .weights = WeightFormat::bf16, .threads = 2};
  const auto wide = harness::Runner(options).run(requests);
  options.max_rows = 130;
  options.prefill_rows = 64;
  const auto narrow = harness::Runner(options).run(requests);
  for (size_t i = 0; i < requests.size(); i++) CHECK(narrow[i].same(wide[i]));
}

TEST("a cache too small for all makes requests wait, and every page comes back") {
  const auto requests = mixed(crowd());
  EngineOptions options{.path = kNano, .weights = WeightFormat::bf16, .threads = 2};
  const auto wide = harness::Runner(options).run(requests);
  options.kv_tokens = 512;
  harness::Runner runner(options);
  const auto narrow = runner.run(requests);
  for (size_t i = 0; i < requests.size(); i++) CHECK(narrow[i].same(wide[i]));
  runner.engine().close();
  const auto stats = runner.engine().stats();
  CHECK(stats.pages_free + stats.pages_cached == stats.pages_total && stats.pages_total == 8);
  CHECK(stats.running == 0 && stats.waiting == 0);
}

TEST("the seed decides what is sampled") {
  Request r = prompt_of(20);
  r.temperature = 1.5f;
  r.seed = 1;
  Request other = r;
  other.seed = 2;
  harness::Runner runner({.path = kNano, .threads = 2});
  const auto results = runner.run({r, r, other});
  CHECK(results[0].same(results[1]));
  CHECK(!results[0].same(results[2]));
}

TEST("maxTokens, the context and the block bound a generation") {
  harness::Runner runner({.path = kNano, .threads = 2});
  Request r = prompt_of(13);
  r.max_tokens = 1;
  auto result = runner.run({r})[0];
  CHECK(result.tokens.size() == 1 && result.reason == 2);
  r = prompt_of(1000);
  r.max_tokens = 1 << 30;
  result = runner.run({r})[0];
  CHECK(result.tokens.size() == 24 && result.reason == 2);
  r.block_length = 3;  // floor(1024 / 3) · 3 = 1023
  result = runner.run({r})[0];
  CHECK(result.tokens.size() == 23 && result.reason == 2);
}

TEST("minTokens keeps end ids and stop tokens away, ignoreEos goes past them") {
  harness::Runner runner({.path = kNano, .threads = 2});
  const auto config = sdar::read_config(kNano);
  std::vector<int32_t> prompt = {557, 267, 10, 353, 352, 58, 32,  49, 51,  372, 423, 117,
                                 256, 32,  49, 57,  48,  56, 558, 10, 557, 271, 10};
  Request r;
  r.tokens = prompt;
  r.max_tokens = 64;
  const auto plain = runner.run({r})[0];
  CHECK(plain.reason == 0 && plain.tokens.size() == 11);
  CHECK(plain.tokens.back().id == 558);
  Request longer = r;
  longer.min_tokens = 30;
  const auto held = runner.run({longer})[0];
  CHECK(held.tokens.size() >= 30);
  for (size_t i = 0; i + 1 < held.tokens.size() && i < 29; i++)
    for (int32_t end : config.end_token_ids) CHECK(held.tokens[i].id != end);
  Request past = r;
  past.ignore_eos = true;
  CHECK(runner.run({past})[0].tokens.size() == 64);
  Request stop = r;
  stop.stop_tokens = {plain.tokens[4].id};
  const auto stopped = runner.run({stop})[0];
  CHECK(stopped.reason == 1);
  CHECK(stopped.tokens.back().id == plain.tokens[4].id && stopped.tokens.size() <= 5);
}

TEST("a biased token is chosen, a suppressed one never") {
  harness::Runner runner({.path = kNano, .threads = 2});
  Request r = prompt_of(10);
  r.bias_ids = {123};
  r.bias_values = {100.0f};
  const auto biased = runner.run({r})[0];
  for (const auto& t : biased.tokens) CHECK(t.id == 123 && t.confidence > 0.99f);
  r.bias_ids = {559};  // the mask id keeps its probability but is never chosen
  const auto suppressed = runner.run({r})[0];
  for (const auto& t : suppressed.tokens) CHECK(t.id != 559);
}

TEST("a prompt may hold the mask id literally") {
  harness::Runner runner({.path = kNano, .threads = 2});
  Request r = prompt_of(21);
  r.tokens[20] = 559;
  const auto result = runner.run({r})[0];
  CHECK(result.tokens.size() == 24 && result.tokens[0].position == 21);
}

TEST("drafts show every step of the block") {
  harness::Runner runner({.path = kNano, .threads = 1});
  Request r = prompt_of(9);
  r.drafts = true;
  r.denoise.strategy = Strategy::low_confidence_static;
  const auto result = runner.run({r})[0];
  CHECK(result.drafts == result.forwards);
}

TEST("requests that cannot run are refused and say why") {
  harness::Runner runner({.path = kNano, .threads = 1, .kv_tokens = 128});
  const auto with = [](auto change) {
    Request r = prompt_of(10);
    change(r);
    return r;
  };
  const auto refuse = [&](const char* code, const char* part, auto change) {
    CHECK_THROWS(code, part, runner.submit(with(change)));
  };
  using namespace sdar::code;
  refuse(kEmptyPrompt, "the prompt is empty", [](Request& r) { r.tokens.clear(); });
  refuse(kTokenOutOfRange, "560", [](Request& r) { r.tokens[3] = 560; });
  refuse(kTokenOutOfRange, "-1", [](Request& r) { r.tokens[3] = -1; });
  refuse(kTokenOutOfRange, "stopTokens", [](Request& r) { r.stop_tokens = {999}; });
  refuse(kTokenOutOfRange, "logitBias", [](Request& r) { r.bias_ids = {-5}, r.bias_values = {1}; });
  refuse(kPromptTooLong, "1024", [](Request& r) { r.tokens.resize(1024, 1); });
  refuse(kCacheTooSmall, "128", [](Request& r) { r.tokens.resize(120, 1), r.max_tokens = 100; });
  refuse(kInvalidOption, "maxTokens is 0", [](Request& r) { r.max_tokens = 0; });
  refuse(kInvalidOption, "blockLength is 65", [](Request& r) { r.block_length = 65; });
  refuse(kInvalidOption, "blockLength is -1", [](Request& r) { r.block_length = -1; });
  refuse(kInvalidOption, "threshold", [](Request& r) { r.denoise.threshold = 1.5f; });
  refuse(kInvalidOption, "threshold", [](Request& r) { r.denoise.threshold = NAN; });
  refuse(kInvalidOption, "entropyBound", [](Request& r) { r.denoise.entropy_bound = -1; });
  refuse(kInvalidOption, "steps", [](Request& r) { r.denoise.steps = -1; });
  refuse(kInvalidOption, "temperature", [](Request& r) { r.temperature = -0.1f; });
  refuse(kInvalidOption, "temperature", [](Request& r) { r.temperature = INFINITY; });
  refuse(kInvalidOption, "topK", [](Request& r) { r.top_k = -2; });
  refuse(kInvalidOption, "topP", [](Request& r) { r.top_p = 0; });
  refuse(kInvalidOption, "minP", [](Request& r) { r.min_p = 1.5f; });
  refuse(kInvalidOption, "minTokens", [](Request& r) { r.min_tokens = -1; });
  refuse(kInvalidOption, "logitBias", [](Request& r) { r.bias_ids = {1}, r.bias_values = {NAN}; });
  refuse(kInvalidOption, "stop", [](Request& r) { r.stop = {""}; });
  CHECK(runner.run({with([](Request&) {})})[0].reason == 2);  // and the engine still works
}

TEST("aborting waiting and running requests ends each once with what it had") {
  EngineOptions options{.path = kNano, .threads = 2, .max_concurrent = 2};
  harness::Runner runner(options);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 12; i++) {
    Request r = prompt_of(20, i);
    r.max_tokens = 900;
    r.denoise.strategy = Strategy::sequential;
    ids.push_back(runner.submit(r));
  }
  runner.pump();
  for (uint64_t id : ids) runner.engine().abort(id);
  runner.engine().abort(12345);
  for (uint64_t id : ids) runner.engine().abort(id);
  while (runner.pump()) {
  }
  for (uint64_t id : ids) CHECK(runner.result(id).ends == 1 && runner.result(id).reason == 3);
  runner.engine().close();
  const auto stats = runner.engine().stats();
  CHECK(stats.pages_free + stats.pages_cached == stats.pages_total);
}

TEST("closing while running fails everything with DISPOSED, and later calls too") {
  harness::Runner runner({.path = kNano, .threads = 2, .max_concurrent = 4});
  for (int i = 0; i < 10; i++) {
    Request r = prompt_of(20, i);
    r.max_tokens = 900;
    r.denoise.strategy = Strategy::sequential;
    runner.submit(r);
  }
  runner.pump();
  runner.engine().close();
  runner.engine().close();
  runner.take();
  for (uint64_t id = 0; id < 10; id++)
    CHECK(runner.result(id).ends == 1 && runner.result(id).error == sdar::code::kDisposed);
  CHECK_THROWS(sdar::code::kDisposed, "disposed", runner.submit(prompt_of(5)));
  runner.engine().abort(3);
}

TEST("many threads may submit and abort at once") {
  harness::Runner runner({.path = kNano, .threads = 2, .max_concurrent = 8});
  std::atomic<uint64_t> next{1000};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; i++) {
        Request r = prompt_of(5 + i, t * 100 + i);
        r.id = next++;
        r.max_tokens = 8;
        const uint64_t id = r.id;
        runner.engine().submit(std::move(r));
        if (i % 3 == 0) runner.engine().abort(id);
        runner.engine().stats();
      }
    });
  }
  for (auto& t : threads) t.join();
  while (runner.engine().stats().running + runner.engine().stats().waiting > 0) std::this_thread::yield();
  runner.engine().close();
  runner.take();
  for (uint64_t id = 1000; id < 1100; id++) CHECK(runner.result(id).ends == 1);
}

TEST("a NaN in the logits ends that request with NUMERIC_ERROR, not the engine") {
  // A copy of a tiny checkpoint in which the embedding of token 7 is NaN.
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("sdar-nan-" + std::to_string(std::random_device{}()));
  fs::copy("test/golden/tiny-dense", folder);
  fs::permissions(folder / "model.safetensors", fs::perms::owner_all);
  std::string bytes;
  {
    std::ifstream in(folder / "model.safetensors", std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  uint64_t header = 0;
  memcpy(&header, bytes.data(), 8);
  const std::string json = bytes.substr(8, header);
  const size_t entry = json.find("\"model.embed_tokens.weight\"");
  const size_t offsets = json.find("\"data_offsets\":", entry);
  const size_t begin = std::stoul(json.substr(json.find('[', offsets) + 1));
  const float nan = NAN;
  for (int i = 0; i < 96; i++) memcpy(&bytes[8 + header + begin + 4 * (7 * 96 + i)], &nan, 4);
  std::ofstream(folder / "model.safetensors", std::ios::binary) << bytes;

  for (const std::string& isa : harness::instruction_sets()) {
    harness::Runner runner({.path = folder, .weights = WeightFormat::f32, .threads = 2, .isa = isa});
    Request good;
    good.tokens = {1, 2, 3};
    good.max_tokens = 12;
    Request bad = good;
    bad.tokens = {1, 7, 3};
    Request sampled = bad;
    sampled.temperature = 0.8f;
    const auto results = runner.run({good, bad, good, sampled});
    CHECK(results[0].reason >= 0 && results[2].same(results[0]));
    for (int i : {1, 3}) CHECK(results[i].error == sdar::code::kNumericError && results[i].ends == 1);
    CHECK(results[1].message.find("positions 0 to 3") != std::string::npos);
    CHECK(runner.run({good})[0].same(results[0]));
  }
  fs::remove_all(folder);
}

TEST("stop strings end a generation where they begin, and what may become one is held back") {
  harness::Runner runner({.path = kNano, .threads = 2});
  sdar::TokenBytes table;  // one letter per id
  for (int i = 0; i <= 560; i++) table.offsets.push_back(i);
  for (int i = 0; i < 560; i++) table.bytes.push_back(char('a' + i % 26));
  runner.engine().set_token_bytes(table);
  Request r = prompt_of(12);
  const auto plain = runner.run({r})[0];
  std::string text;
  for (const auto& t : plain.tokens) text += char('a' + t.id % 26);
  CHECK(plain.text_bytes == int64_t(text.size()));
  for (size_t at : {size_t(0), size_t(5), text.size() - 3}) {
    Request stop = r;
    stop.stop = {"@never", text.substr(at, 3)};
    const auto stopped = runner.run({stop})[0];
    const size_t where = text.find(stop.stop[1]);
    CHECK(stopped.reason == 1 && stopped.text_bytes == int64_t(where) && stopped.tokens.size() == where + 3);
    CHECK(stopped.released_bytes <= stopped.text_bytes);
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
