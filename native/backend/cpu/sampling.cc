#include "backend/cpu/sampling.h"

#include <limits>

namespace sdar::cpu {
namespace {

// Ids are counted in buckets of 1/64 of a nat below the best one: a larger logit never lies in a later bucket.
constexpr int kBuckets = 2048;
constexpr float kBucketsPerNat = 64;

int bucket_of(float logit, float best, float scale) {
  const float distance = (best - logit) * scale * kBucketsPerNat;
  return distance < kBuckets - 1 ? static_cast<int>(distance) : kBuckets - 1;
}

}  // namespace

void Sampler::collect(std::span<const float> logits, float best, float scale, int bucket, const Cut& within) {
  ids_.clear();
  for (size_t i = 0; i < logits.size(); i++) {
    const int32_t id = static_cast<int32_t>(i);
    if (weights_[i] >= 0 && bucket_of(logits[i], best, scale) == bucket && within.keeps(logits[i], id)) {
      ids_.push_back(id);
    }
  }
}

Sampler::Cut Sampler::cut_by_count(std::span<const float> logits, float best, float scale, int64_t count) {
  int64_t members[kBuckets] = {};
  for (size_t i = 0; i < logits.size(); i++) {
    if (weights_[i] >= 0) members[bucket_of(logits[i], best, scale)]++;
  }
  int bucket = 0;
  for (; members[bucket] < count; bucket++) count -= members[bucket];
  collect(logits, best, scale, bucket, {-std::numeric_limits<float>::infinity(), 0});
  const auto last = ids_.begin() + (count - 1);
  std::nth_element(ids_.begin(), last, ids_.end(),
                   [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  return {logits[*last], *last};
}

Sampler::Cut Sampler::cut_by_mass(std::span<const float> logits, float best, float scale, float top_p,
                                  const Cut& within) {
  double mass[kBuckets] = {}, total = 0;
  int last = 0;
  for (size_t i = 0; i < logits.size(); i++) {
    if (weights_[i] < 0 || !within.keeps(logits[i], static_cast<int32_t>(i))) continue;
    const int bucket = bucket_of(logits[i], best, scale);
    mass[bucket] += weights_[i];
    total += weights_[i];
    last = std::max(last, bucket);
  }
  const double wanted = static_cast<double>(top_p) * total;
  double sum = 0;
  int bucket = 0;
  for (; bucket < last && sum + mass[bucket] < wanted; bucket++) sum += mass[bucket];
  collect(logits, best, scale, bucket, within);
  std::sort(ids_.begin(), ids_.end(),
            [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  size_t kept = 0;
  do sum += weights_[ids_[kept++]];
  while (kept < ids_.size() && sum < wanted);
  return {logits[ids_[kept - 1]], ids_[kept - 1]};
}

Choice Sampler::sample(const Kernels& kernels, std::span<const float> logits, float best, const SampledRow& request) {
  const float scale = inverse_temperature(request.temperature);
  const int64_t n = static_cast<int64_t>(logits.size());
  weights_.resize(logits.size());
  kernels.exp_shifted(logits.data(), n, best, scale, weights_.data());
  int64_t allowed = n;
  for (int32_t id : request.suppressed) {
    if (id < 0 || id >= n || weights_[id] < 0) continue;
    weights_[id] = -1;
    allowed--;
  }

  Cut cut{-std::numeric_limits<float>::infinity(), 0};
  if (request.top_k > 0 && request.top_k < allowed) cut = cut_by_count(logits, best, scale, request.top_k);
  if (request.top_p < 1) cut = cut_by_mass(logits, best, scale, request.top_p, cut);

  double total = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (weights_[i] > 0 && cut.keeps(logits[i], static_cast<int32_t>(i))) total += weights_[i];
  }
  Choice choice;
  for (int64_t i = 0; i < n; i++) {  // rounding may leave the last id
    if (!(weights_[i] > 0) || !cut.keeps(logits[i], static_cast<int32_t>(i))) continue;
    choice = {static_cast<int32_t>(i), weights_[i] / total};
    sum += weights_[i];
    if (sum > request.uniform * total) break;
  }
  return choice;
}

}  // namespace sdar::cpu
