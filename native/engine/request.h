// A request as it comes from the addon or a native caller, and how it can end.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/step.h"
#include "form/live.h"

namespace sdar {

struct Request : SamplingParams {
  uint64_t id = 0;  ///< chosen by the caller, unique among what runs
  std::vector<int32_t> tokens;
  int32_t max_tokens = 0;         ///< >= 1
  int32_t block_length = 0;       ///< 1 … 64; 0: the checkpoint's
  std::vector<std::string> stop;  ///< bytes
  std::vector<int32_t> stop_tokens;
  std::vector<int32_t> suppress;  ///< ids never chosen
  bool ignore_eos = false;
  int32_t min_tokens = 0;
  bool drafts = false;
  std::vector<int32_t> given;            ///< the text itself, to be scored: max_tokens are as many, ignore_eos is set
  std::shared_ptr<form::LiveForm> form;  ///< that the text has; of this engine (Engine::compile)

  /// Requests of one group (0: none) are completions of one prompt: the others wait until completion 0 has it in the
  /// cache.
  uint64_t group = 0;
  double rank = 0;       ///< among those that wait, lower ones are admitted first
  int32_t priority = 0;  ///< when pages run out the lowest priority is preempted first, then the highest rank
  uint64_t tenant = 0;   ///< whom it is for: steps are shared evenly among tenants
  /// Fails with DEADLINE_EXCEEDED unless it has ended by then.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  std::string salt;  ///< cached pages are shared among requests of equal salt
  bool pin = false;  ///< pages of the prompt are evicted after all others
};

enum class FinishReason : uint8_t { end, stop, length, abort };
inline constexpr std::array kFinishReasons{"end", "stop", "length", "abort"};

/// A generated token; `position` is absolute, `step` counts within its block.
struct TokenRecord {
  int32_t id = 0;
  int32_t position = 0;
  int32_t block = 0;
  int32_t step = 0;
  float confidence = 0;
  float logprob = 0;
};

/// One of a token's most probable alternatives, or itself.
struct RankedLogprob {
  int32_t id = -1;  ///< −1: the vocabulary has no more
  float logprob = 0;
};

}  // namespace sdar
