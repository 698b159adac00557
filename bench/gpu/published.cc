#include "report.h"

namespace gpu_bench {

nlohmann::ordered_json published_figures() {
  const char* jetengine =
      "git clone https://github.com/Labman42/JetEngine.git && pip install flash-attn --no-build-isolation && pip "
      "install "
      "./JetEngine && accelerate launch --multi_gpu dist_example.py (4B, block 4, batch 128; its README gives no other "
      "settings)";
  const char* sglang =
      "python3 -m sglang.launch_server --model-path JetLM/SDAR-8B-Chat --trust-remote-code --mem-fraction-static 0.6 "
      "--max-running-requests 128 --attention-backend flashinfer --dllm-algorithm LowConfidence --tp 1; then its GSM8K "
      "evaluation: 5 shots, 200 questions, 1024 new tokens, 128 at a time";
  const auto of_jetengine = [&](const char* card, const char* rate, const std::string& edition) {
    return nlohmann::ordered_json{{"engine", "JetEngine"},
                                  {"model", "SDAR-4B"},
                                  {"block", 4},
                                  {"batch", 128},
                                  {"card", card},
                                  {"tokensPerSecond", rate},
                                  {"source", "README of github.com/Labman42/JetEngine" + edition},
                                  {"command", jetengine}};
  };
  return nlohmann::ordered_json::array({
      of_jetengine("A800", "3000+", ""),
      of_jetengine("H200", "5000+", ", 2025 (FlashAttention 2, Triton kernels)"),
      of_jetengine("H200", "7500+", ", April 2026 (FlashAttention 3, CUDA graphs, dynamic_pmax)"),
      {{"engine", "SGLang"},
       {"model", "SDAR-8B-Chat"},
       {"block", 4},
       {"batch", 128},
       {"card", "not named"},
       {"tokensPerSecond", "659"},
       {"source", "github.com/sgl-project/sglang pull request 18318 (GSM8K, answers end by themselves)"},
       {"command", sglang}},
  });
}

}  // namespace gpu_bench
