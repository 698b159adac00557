#include "backend/cpu/sampling.h"

#include <bit>
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

void Sampler::gather_allowed(std::span<const float> logits, const SampledRow& request) {
  const size_t n = logits.size();
  mask_.assign(request.allowed, request.allowed + (n + 63) / 64);
  if (n % 64) mask_.back() &= (uint64_t{1} << n % 64) - 1;
  for (int32_t id : request.suppressed)
    if (id >= 0 && static_cast<size_t>(id) < n) mask_[id / 64] &= ~(uint64_t{1} << id % 64);
  allowed_.clear(), allowed_logits_.clear();
  for (size_t word = 0; word < mask_.size(); word++) {
    for (uint64_t left = mask_[word]; left; left &= left - 1) {
      const size_t id = word * 64 + static_cast<size_t>(std::countr_zero(left));
      allowed_.push_back(static_cast<int32_t>(id));
      allowed_logits_.push_back(logits[id]);
    }
  }
}

Choice Sampler::sample(const Kernels& kernels, std::span<const float> logits, float best, const SampledRow& request) {
  const float scale = inverse_temperature(request.temperature);
  if (request.allowed) {
    // Most ids may be out: those that are not are moved together, in their order.
    gather_allowed(logits, request);
    const auto count = static_cast<int64_t>(allowed_.size());
    weights_.resize(allowed_.size());
    kernels.exp_shifted(allowed_logits_.data(), count, best, scale, weights_.data());
    Choice choice = sample(allowed_logits_, best, count, request);
    choice.token = allowed_[choice.token];
    return choice;
  }
  const int64_t n = static_cast<int64_t>(logits.size());
  weights_.resize(logits.size());
  kernels.exp_shifted(logits.data(), n, best, scale, weights_.data());
  int64_t allowed = n;
  for (int32_t id : request.suppressed) {
    if (id < 0 || id >= n || weights_[id] < 0) continue;
    weights_[id] = -1;
    allowed--;
  }
  return sample(logits, best, allowed, request);
}

Choice Sampler::sample(std::span<const float> logits, float best, int64_t allowed, const SampledRow& request) {
  const float scale = inverse_temperature(request.temperature);
  const int64_t n = static_cast<int64_t>(logits.size());
  Cut cut{-std::numeric_limits<float>::infinity(), 0};
  if (request.top_k > 0 && request.top_k < allowed) cut = cut_by_count(logits, best, scale, request.top_k);
  if (request.top_p < 1) cut = cut_by_mass(logits, best, scale, request.top_p, cut);

  if (request.min_p > 0) {
    const Cut least{best + min_p_range(request.min_p, request.temperature), std::numeric_limits<int32_t>::max()};
    if (!least.keeps(cut.logit, cut.id)) cut = least;
  }

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
