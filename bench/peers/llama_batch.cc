// Several answers at a time with llama.cpp, one timing per line of stdin:
//   llama_batch LIBRARY_FOLDER MODEL.gguf CONTEXT THREADS
// A line is "REQUESTS PROMPT_TOKENS NEW_TOKENS"; the answer is {"requests":…,"ms":…}: all prompts in one llama_decode, then a
// token of each request in every further one, the most probable. Prompts are arbitrary ids, another one for each request.
#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
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

constexpr int kMostRequests = 64;

class Batch {
 public:
  Batch(const char* path, int context, int threads) {
    model_.reset(llama_model_load_from_file(path, llama_model_default_params()));
    if (!model_) throw std::runtime_error(std::string(path) + ": llama.cpp cannot load it");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(context);
    params.n_batch = params.n_ubatch = static_cast<uint32_t>(context);
    params.n_seq_max = kMostRequests;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) throw std::runtime_error("llama.cpp cannot create a context");
    batch_ = llama_batch_init(context, 0, 1);
    vocabulary_ = llama_vocab_n_tokens(llama_model_get_vocab(model_.get()));
  }
  ~Batch() { llama_batch_free(batch_); }

  double answer(int requests, int prompt, int fresh) {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    const auto began = std::chrono::steady_clock::now();
    batch_.n_tokens = 0;
    for (int r = 0; r < requests; r++)
      for (int p = 0; p < prompt; p++) add(1000 + 7919 * r % 1000 + 37 * p % 1000, p, r, p + 1 == prompt);
    for (int position = prompt, made = 1;; position++, made++) {
      if (llama_decode(context_.get(), batch_) != 0) throw std::runtime_error("llama_decode failed");
      std::vector<llama_token> next;
      for (int i = 0; i < batch_.n_tokens; i++)
        if (batch_.logits[i]) next.push_back(most_likely(i));
      if (made == fresh) break;
      batch_.n_tokens = 0;
      for (int r = 0; r < requests; r++) add(next[static_cast<size_t>(r)], position, r, true);
    }
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
  }

 private:
  void add(llama_token id, int position, int request, bool logits) {
    const int i = batch_.n_tokens++;
    batch_.token[i] = id;
    batch_.pos[i] = position;
    batch_.n_seq_id[i] = 1;
    batch_.seq_id[i][0] = request;
    batch_.logits[i] = logits;
  }
  llama_token most_likely(int row) const {
    const float* logits = llama_get_logits_ith(context_.get(), row);
    return static_cast<llama_token>(std::max_element(logits, logits + vocabulary_) - logits);
  }

  std::unique_ptr<llama_model, decltype(&llama_model_free)> model_{nullptr, llama_model_free};
  std::unique_ptr<llama_context, decltype(&llama_free)> context_{nullptr, llama_free};
  llama_batch batch_{};
  int vocabulary_ = 0;
};

}  // namespace

int main(int count, char** args) {
  if (count != 5) {
    std::fputs("usage: llama_batch LIBRARY_FOLDER MODEL.gguf CONTEXT THREADS\n", stderr);
    return 2;
  }
  try {
    start_llama(args[1]);
    Batch batch(args[2], std::atoi(args[3]), std::atoi(args[4]));
    std::puts("{\"ready\":true}");
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
      int requests = 0, prompt = 0, fresh = 0;
      std::istringstream(line) >> requests >> prompt >> fresh;
      if (requests < 1 || requests > kMostRequests || prompt < 1 || fresh < 1)
        throw std::runtime_error("a line must be REQUESTS PROMPT_TOKENS NEW_TOKENS, each >= 1");
      std::printf("{\"requests\":%d,\"ms\":%.4f}\n", requests, batch.answer(requests, prompt, fresh));
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llama_batch: %s\n", error.what());
    return 1;
  }
}
