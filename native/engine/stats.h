// Counters of an engine since it was loaded, and what it holds now. lib/binding.ts (NativeStats) mirrors them.
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "backend/step.h"

namespace sdar {

struct EngineStats {
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t paused = 0;
  int32_t pages_total = 0;
  int32_t pages_free = 0;
  int32_t pages_cached = 0;  ///< held by no request, contents can be found
  int32_t pages_pinned = 0;
  int64_t steps = 0;
  int64_t rows = 0;       ///< positions computed over all steps
  int64_t sequences = 0;  ///< sequences over all steps
  int32_t max_sequences = 0;
  int64_t forwards = 0;  ///< of requests: denoising steps
  int64_t filled_tokens = 0;
  std::array<int64_t, kMaxBlockLength + 1> tokens_per_forward{};  ///< [k]: forwards that filled k tokens
  int64_t prefill_tokens = 0;
  int64_t recomputed_tokens = 0;  ///< after a preemption or a long pause
  int64_t prompt_tokens = 0;      ///< of admitted requests …
  int64_t cached_tokens = 0;      ///< … of them found in the prefix cache
  int64_t draft_steps = 0;        ///< forwards of the draft model
  int64_t draft_forwards = 0;     ///< of requests: drafts
  int64_t drafted_tokens = 0;     ///< proposed and computed by the target …
  int64_t accepted_tokens = 0;    ///< … and kept
  double draft_seconds = 0;       ///< in the draft model's steps, beside step_seconds
  int64_t preemptions = 0;
  int64_t evictions = 0;
  int64_t finished[4] = {};  ///< by FinishReason
  int64_t failed = 0;
  int64_t timed_out = 0;
  double step_seconds = 0;
  double scheduler_seconds = 0;
  StepSeconds seconds;  ///< parts of step_seconds; all 0 on a GPU unless EngineOptions::time_steps
  std::string failure;  ///< why the device can no longer compute; empty while it can
};

}  // namespace sdar
