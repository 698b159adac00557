// Whole generations of sdar-nano, for tests of backends that must give the CPU's tokens.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "golden_cases.h"
#include "harness.h"

namespace generations {

using namespace sdar;
using Results = std::vector<harness::Result>;

/// The first `count` golden cases, case i with strategy (i + shift) % 5.
/// Strategies that need no verification come first, and only those run on a GPU.
constexpr int kGpuStrategies = static_cast<int>(Strategy::self_verified);

inline std::vector<Request> requests_of(int count, int shift) {
  const auto cases = golden::cases("sdar-nano");
  std::vector<Request> requests;
  for (int i = 0; i < count; i++) {
    requests.push_back(golden::request_of(cases[i]));
    requests.back().denoise.strategy = static_cast<Strategy>((i + shift) % kGpuStrategies);
  }
  return requests;
}

/// A request of another kind each: temperatures, truncation, biases, ids that are not allowed at first.
inline std::vector<Request> sampled(int count) {
  std::vector<Request> requests = requests_of(count, 0);
  for (int i = 0; i < count; i++) {
    Request& r = requests[i];
    r.temperature = i % 4 == 3 ? 0 : 0.5f + 0.3f * float(i % 3);
    r.top_k = i % 2 ? 5 + i : 0;
    r.top_p = i % 3 ? 0.9f : 1;
    r.min_p = i % 5 ? 0 : 0.1f;
    r.seed = 77 + uint64_t(i);
    r.completion = i % 3;
    r.confidence = i % 2 ? Confidence::sampled : Confidence::model;
    r.max_tokens = 12;
    r.min_tokens = i;
    r.stop_tokens = {5, 48};
    r.top_logprobs = i % 3 == 1 ? 4 : 0;
    if (i % 4 > 1) r.repetition_penalty = 1.3f, r.frequency_penalty = 0.2f, r.presence_penalty = -0.1f;
    if (i % 4 == 2) r.suppress = {7, 12, 300};
    if (i % 8 == 5)
      for (int id = 0; id < 40; id++) r.suppress.push_back(id * 5);
    if (i % 2) r.bias_ids = {3, 40, 77}, r.bias_values = {-2, 3, 1};
  }
  return requests;
}

/// Compares ids and returns the number of requests with other ones, or whose tokens came at other steps.
struct Differences {
  int tokens = 0, steps = 0;
};
inline Differences differences(const Results& got, const Results& want) {
  Differences d;
  for (size_t i = 0; i < got.size(); i++) {
    const auto same = [&](auto equal) {
      return std::equal(got[i].tokens.begin(), got[i].tokens.end(), want[i].tokens.begin(), want[i].tokens.end(),
                        equal);
    };
    const bool ids = same([](const TokenRecord& a, const TokenRecord& b) { return a.id == b.id; });
    d.tokens += !ids || got[i].reason != want[i].reason;
    d.steps += ids && !same([](const TokenRecord& a, const TokenRecord& b) { return a.step == b.step; });
  }
  return d;
}

inline void check_same(const Results& a, const Results& b, const char* what) {
  for (size_t i = 0; i < a.size(); i++) {
    if (a[i].ends != 1 || !a[i].error.empty())
      check::fail(__FILE__, __LINE__, "request " + std::to_string(i) + ": " + a[i].message);
    if (!a[i].same(b[i])) check::fail(__FILE__, __LINE__, "request " + std::to_string(i) + " differs " + what);
  }
}

}  // namespace generations
