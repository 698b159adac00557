// Times llama_decode alone, one call per line of stdin (protocol: README.md).
//   llama_bench LIBRARY_FOLDER MODEL.gguf CONTEXT THREADS MAX_TOKENS
// A call decodes the tokens at the end of a context of CONTEXT tokens, with logits at every position; then they are
// removed.
#include <ggml-backend.h>
#include <link.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "llama_start.h"

namespace {

constexpr int kMicroBatch = 512;

/** File name of the CPU backend that ggml chose for this machine. */
std::string cpu_library() {
  std::string name;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        const char* found = std::strstr(info->dlpi_name, "libggml-cpu");
        if (found) *static_cast<std::string*>(result) = found;
        return 0;
      },
      &name);
  return name;
}

class Bench {
 public:
  Bench(const char* path, int context, int threads, int max_tokens)
      : context_tokens_(context), max_tokens_(max_tokens) {
    model_.reset(llama_model_load_from_file(path, llama_model_default_params()));
    if (!model_) throw std::runtime_error(std::string(path) + ": llama.cpp cannot load it");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(std::max(kMicroBatch, context + max_tokens));
    params.n_batch = static_cast<uint32_t>(std::max(kMicroBatch, max_tokens));
    params.n_ubatch = kMicroBatch;
    params.n_threads = threads;
    params.n_threads_batch = threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    // Without a pool of ours ggml starts its threads for each decode and joins them after it, as under node-llama-cpp:
    // between two calls this process has one thread, asleep in read().
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) throw std::runtime_error("llama.cpp cannot create a context");
    batch_ = llama_batch_init(std::max(kMicroBatch, max_tokens), /*embd=*/0, /*n_seq_max=*/1);
    for (int filled = 0; filled < context; filled += kMicroBatch) {
      decode(filled, std::min(kMicroBatch, context - filled), /*logits=*/false);
    }
  }
  ~Bench() { llama_batch_free(batch_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /** Milliseconds of one decode of `tokens` tokens behind the context. */
  double run(int tokens) {
    if (tokens < 1 || tokens > max_tokens_) {
      throw std::invalid_argument("tokens " + std::to_string(tokens) + ": must be 1 to " + std::to_string(max_tokens_));
    }
    const double ms = decode(context_tokens_, tokens, /*logits=*/true);
    if (!std::isfinite(llama_get_logits_ith(context_.get(), tokens - 1)[0]))
      throw std::runtime_error("logits not finite");
    if (!llama_memory_seq_rm(llama_get_memory(context_.get()), 0, context_tokens_, -1)) {
      throw std::runtime_error("llama.cpp cannot remove tokens");
    }
    return ms;
  }

  void print_ready() const {
    char description[128];
    llama_model_desc(model_.get(), description, sizeof(description));
    std::printf(
        "{\"ready\":true,\"engine\":\"llama.cpp\",\"model\":\"%s\",\"library\":\"%s\",\"parameters\":%llu,"
        "\"weightBytes\":%llu,\"threads\":%d,\"context\":%d,\"ubatch\":%u,\"system\":\"%s\"}\n",
        description, cpu_library().c_str(), static_cast<unsigned long long>(llama_model_n_params(model_.get())),
        static_cast<unsigned long long>(llama_model_size(model_.get())), llama_n_threads(context_.get()),
        context_tokens_, llama_n_ubatch(context_.get()), llama_print_system_info());
    std::fflush(stdout);
  }

 private:
  double decode(int position, int tokens, bool logits) {
    std::uniform_int_distribution<llama_token> any(0, llama_vocab_n_tokens(llama_model_get_vocab(model_.get())) - 1);
    batch_.n_tokens = tokens;
    for (int i = 0; i < tokens; ++i) {
      batch_.token[i] = any(random_);
      batch_.pos[i] = position + i;
      batch_.n_seq_id[i] = 1;
      batch_.seq_id[i][0] = 0;
      batch_.logits[i] = logits;
    }
    const auto start = std::chrono::steady_clock::now();
    const int status = llama_decode(context_.get(), batch_);
    llama_synchronize(context_.get());
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    if (status != 0) throw std::runtime_error("llama_decode failed with " + std::to_string(status));
    return elapsed.count();
  }

  int context_tokens_;
  int max_tokens_;
  std::mt19937 random_{1};
  std::unique_ptr<llama_model, decltype(&llama_model_free)> model_{nullptr, llama_model_free};
  std::unique_ptr<llama_context, decltype(&llama_free)> context_{nullptr, llama_free};
  llama_batch batch_{};
};

/** The number after "tokens": in a line such as {"tokens":8}. */
int parse_tokens(const std::string& line) {
  const size_t key = line.find("\"tokens\":");
  if (key == std::string::npos) throw std::invalid_argument("expected {\"tokens\":N}, got " + line);
  return std::atoi(line.c_str() + key + std::strlen("\"tokens\":"));
}

}  // namespace

int main(int count, char** args) {
  if (count != 6) {
    std::fputs("usage: llama_bench LIBRARY_FOLDER MODEL.gguf CONTEXT THREADS MAX_TOKENS\n", stderr);
    return 2;
  }
  try {
    start_llama(args[1]);
    Bench bench(args[2], std::atoi(args[3]), std::atoi(args[4]), std::atoi(args[5]));
    bench.print_ready();
    for (std::string line; std::getline(std::cin, line);) {
      const int tokens = parse_tokens(line);
      std::printf("{\"tokens\":%d,\"ms\":%.4f}\n", tokens, bench.run(tokens));
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llama_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
