// Greedy generation with llama.cpp, one answer per line of stdin:
//   llama_generate LIBRARY_FOLDER MODEL.gguf CONTEXT THREADS F32|F16
// A line is "MAX_TOKENS END_IDS PROMPT_IDS", ids separated by commas; the last argument is the format of the KV cache. The
// answer is one line of JSON: the ids without the end id, the log-probability of each, milliseconds to the first and to all.
#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "llama_start.h"

namespace {

using Clock = std::chrono::steady_clock;
using Ids = std::vector<llama_token>;

Ids parse_ids(const std::string& text) {
  Ids ids;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) ids.push_back(std::stoi(part));
  return ids;
}

template <class T>
std::string list(const std::vector<T>& values) {
  std::ostringstream out;
  out.precision(9);
  for (size_t i = 0; i < values.size(); i++) out << (i ? "," : "") << values[i];
  return "[" + out.str() + "]";
}

class Generator {
 public:
  Generator(const char* path, int context, int threads, bool f32_cache) {
    model_.reset(llama_model_load_from_file(path, llama_model_default_params()));
    if (!model_) throw std::runtime_error(std::string(path) + ": llama.cpp cannot load it");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(context);
    params.n_batch = params.n_ubatch = static_cast<uint32_t>(context);
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type = f32_cache ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_ENABLED;
    if (f32_cache) params.type_k = params.type_v = GGML_TYPE_F32;
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) throw std::runtime_error("llama.cpp cannot create a context");
  }

  void answer(size_t max_tokens, const Ids& ends, Ids prompt) {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    const auto began = Clock::now();
    Ids tokens;
    std::vector<double> logprobs;
    double first_ms = 0;
    for (Ids& batch = prompt; tokens.size() < max_tokens;) {
      if (llama_decode(context_.get(), llama_batch_get_one(batch.data(), static_cast<int32_t>(batch.size()))) != 0)
        throw std::runtime_error("llama_decode failed");
      const auto [id, logprob] = most_likely();
      if (first_ms == 0) first_ms = since(began);
      if (std::find(ends.begin(), ends.end(), id) != ends.end()) break;
      tokens.push_back(id);
      logprobs.push_back(logprob);
      batch = {id};
    }
    std::printf("{\"tokens\":%s,\"logprobs\":%s,\"firstMs\":%.4f,\"ms\":%.4f}\n", list(tokens).c_str(),
                list(logprobs).c_str(), first_ms, since(began));
    std::fflush(stdout);
  }

 private:
  static double since(Clock::time_point t) {
    return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
  }

  std::pair<llama_token, double> most_likely() const {
    const float* logits = llama_get_logits_ith(context_.get(), -1);
    const int n = llama_vocab_n_tokens(llama_model_get_vocab(model_.get()));
    const int best = static_cast<int>(std::max_element(logits, logits + n) - logits);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += std::exp(double{logits[i]} - logits[best]);
    return {best, -std::log(sum)};
  }

  std::unique_ptr<llama_model, decltype(&llama_model_free)> model_{nullptr, llama_model_free};
  std::unique_ptr<llama_context, decltype(&llama_free)> context_{nullptr, llama_free};
};

}  // namespace

int main(int count, char** args) {
  if (count != 6) {
    std::fputs("usage: llama_generate LIBRARY_FOLDER MODEL.gguf CONTEXT THREADS F32|F16\n", stderr);
    return 2;
  }
  try {
    start_llama(args[1]);
    Generator generator(args[2], std::atoi(args[3]), std::atoi(args[4]), std::string(args[5]) == "F32");
    std::puts("{\"ready\":true}");
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
      std::istringstream fields(line);
      size_t max_tokens = 0;
      std::string ends, prompt;
      fields >> max_tokens >> ends >> prompt;
      generator.answer(max_tokens, parse_ids(ends), parse_ids(prompt));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llama_generate: %s\n", error.what());
    return 1;
  }
  return 0;
}
