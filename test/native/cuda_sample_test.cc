// Sampling on the CUDA backend under the SIMT executor: tokens and confidences exactly those of the formula in integers of
// 2^-40, for logits of all shapes, where a list of the best ids is enough and where it is not.
#include "backend/cuda/kernels/lm_head.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

struct Request {
  std::vector<float> logits;
  float temperature = 1, top_p = 1, min_p = 0;
  int32_t top_k = 0;
  double uniform = 0.5;
  bool sampled = true;
  std::vector<int32_t> suppressed = {};
  std::vector<uint64_t> allowed = {};  ///< empty: all
};

bool is_suppressed(const Request& r, int32_t id) {
  if (!r.allowed.empty() && !(r.allowed[static_cast<size_t>(id) / 64] >> id % 64 & 1)) return true;
  return std::ranges::find(r.suppressed, id) != r.suppressed.end();
}

struct Expected {
  int32_t token = 0;
  double confidence = 0, entropy = 0, logprob = 0;
  double margin = 1;  ///< to another cut or choice, as a share of all weights
};

/// The choice of the portable backend with full sorts.
Expected expected_of(const Request& r) {
  const auto& l = r.logits;
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(l.size()); id++) {
    if (!is_suppressed(r, id)) ids.push_back(id);
  }
  std::ranges::stable_sort(ids, [&](int32_t a, int32_t b) { return l[a] > l[b]; });
  const float best = l[ids[0]], scale = std::min(1 / r.temperature, 1e30f);
  const auto weight = [&](int32_t id) {
    return static_cast<uint64_t>(std::exp((l[id] - best) * scale) * 1099511627776.0f);
  };
  const auto sum = [&] {
    uint64_t total = 0;
    for (int32_t id : ids) total += weight(id);
    return total;
  };
  Expected e;
  const auto near = [&](uint64_t a, uint64_t b, uint64_t total) {
    e.margin = std::min(e.margin, static_cast<double>(a > b ? a - b : b - a) / static_cast<double>(total));
  };
  if (r.top_k > 0 && static_cast<size_t>(r.top_k) < ids.size()) ids.resize(static_cast<size_t>(r.top_k));
  if (r.top_p < 1) {
    const uint64_t total = sum();
    const double exact = static_cast<double>(r.top_p) * static_cast<double>(total);
    const uint64_t share = std::clamp<uint64_t>(static_cast<uint64_t>(std::ceil(exact)), 1, total);
    uint64_t mass = 0;
    size_t n = 0;
    while (mass < share) {
      mass += weight(ids[n++]);
      near(mass, share, total);
    }
    ids.resize(n);
  }
  if (r.min_p > 0) {
    const float least = best + min_p_range(r.min_p, r.temperature);
    std::erase_if(ids, [&](int32_t id) { return l[id] < least; });
  }
  const uint64_t total = sum();
  const uint64_t target = std::min(static_cast<uint64_t>(r.uniform * static_cast<double>(total)) + 1, total);
  std::ranges::sort(ids);
  uint64_t below = 0;
  e.token = -1;
  for (int32_t id : ids) {
    below += weight(id);
    near(below, target, total);
    if (e.token < 0 && below >= target) e.token = id;
  }
  const std::vector<double> tempered = softmax(l, r.temperature);
  e.confidence = r.sampled ? static_cast<double>(weight(e.token)) / static_cast<double>(total) : tempered[e.token];
  for (double p : tempered) e.entropy -= p > 0 ? p * std::log(p) : 0;
  const float max = std::ranges::max(l);
  double exponentials = 0;
  for (float logit : l) exponentials += std::exp(static_cast<double>(logit) - max);
  e.logprob = static_cast<double>(l[e.token]) - max - std::log(exponentials);
  return e;
}

/// In one launch; all of one vocabulary.
std::vector<cuda::DeviceSampledToken> run(const std::vector<Request>& requests) {
  const size_t count = requests.size(), vocabulary = requests[0].logits.size();
  const size_t tiles = static_cast<size_t>(cuda::lm_head_tiles(static_cast<int32_t>(vocabulary)));
  std::vector<cuda::DeviceSampledRow> device(count);
  std::vector<cuda::DeviceSampledToken> merged(count);
  std::vector<int32_t> suppressed{-7};
  std::vector<uint64_t> masks;
  std::vector<float> logits, numbers(count * tiles * 4, kNan);
  for (size_t i = 0; i < count; i++) {
    const Request& r = requests[i];
    device[i] = {r.uniform, r.temperature, r.top_p, min_p_range(r.min_p, r.temperature), r.top_k, r.sampled};
    device[i].suppressed = static_cast<int32_t>(suppressed.size());
    device[i].suppressed_count = static_cast<int32_t>(r.suppressed.size());
    device[i].logits = static_cast<int32_t>(i);
    if (!r.allowed.empty()) device[i].mask = static_cast<int32_t>(masks.size() / r.allowed.size());
    masks.insert(masks.end(), r.allowed.begin(), r.allowed.end());
    suppressed.insert(suppressed.end(), r.suppressed.begin(), r.suppressed.end());
    logits.insert(logits.end(), r.logits.begin(), r.logits.end());
    for (size_t tile = 0; tile < tiles; tile++) numbers[(i * tiles + tile) * 4 + 1] = -INFINITY;
    float best = -INFINITY;
    for (size_t id = 0; id < vocabulary; id++) {
      if (is_suppressed(r, static_cast<int32_t>(id))) continue;
      float& of_tile = numbers[(i * tiles + id / cuda::kLmHeadTile) * 4 + 1];
      of_tile = std::max(of_tile, r.logits[id]);
      if (r.logits[id] > best) best = r.logits[id], merged[i].token = static_cast<int32_t>(id);
    }
    merged[i].max = std::ranges::max(r.logits);
    double sum = 0;
    for (float l : r.logits) sum += std::exp(static_cast<double>(l) - merged[i].max);
    merged[i].logsumexp = static_cast<float>(merged[i].max + std::log(sum));
    merged[i].finite = 1;
  }
  const Buffer<cuda::DeviceSampledRow> device_requests(device, "requests");
  const Buffer<int32_t> device_count(std::vector<int32_t>{static_cast<int32_t>(count)}, "count"),
      device_suppressed(suppressed, "suppressed");
  const Buffer<uint64_t> device_masks(masks, "masks");
  const Buffer<float> device_logits(logits, "logits"), device_numbers(numbers, "numbers");
  const Buffer<cuda::DeviceSampledToken> results(merged, "results");
  cuda::sample(nullptr, {static_cast<int32_t>(vocabulary),
                         {device_requests.get(), device_count.get(), static_cast<int32_t>(count),
                          device_suppressed.get(), nullptr, nullptr, device_masks.get()},
                         {device_numbers.get(), nullptr, device_logits.get(), results.get()}});
  return results.values();
}

void compare(const std::vector<Request>& requests) {
  const auto got = run(requests);
  for (size_t i = 0; i < requests.size(); i++) {
    const Expected want = expected_of(requests[i]);
#ifndef SDAR_CUDA_HOST
    if (want.margin < 1e-5) continue;  // its exponential function is another one
#endif
    CHECK(got[i].token == want.token);
    CHECK_NEAR(got[i].confidence, want.confidence, 2e-6 + 1e-5 * want.confidence);
    CHECK_NEAR(got[i].entropy, want.entropy, 3e-5 + 1e-5 * want.entropy);
    const float largest = std::max(std::abs(got[i].max), std::abs(requests[i].logits[want.token]));
    CHECK_NEAR(got[i].logprob, want.logprob, 1e-5 + 3e-7 * largest);  // a difference in float
  }
}

enum class Kind { uniform, peaked, ties, equal, rising, wide, spread };
constexpr Kind kKinds[] = {Kind::uniform, Kind::peaked, Kind::ties,  Kind::equal,
                           Kind::rising,  Kind::wide,   Kind::spread};

std::vector<float> logits_of(Random& random, Kind kind, int vocabulary) {
  std::vector<float> logits = random.floats(static_cast<size_t>(vocabulary), -4, 4);
  for (int id = 0; id < vocabulary; id++) {
    float& l = logits[static_cast<size_t>(id)];
    if (kind == Kind::peaked) l = random.below(vocabulary) < 8 ? 15 + l : l;
    if (kind == Kind::ties) l = std::round(l) * 0.5f;  // both zeros among them
    if (kind == Kind::equal) l = -1.5f;
    if (kind == Kind::rising) l = 1e-3f * static_cast<float>(id);      // the best ids share few tiles
    if (kind == Kind::spread && id % cuda::kLmHeadTile == 5) l += 20;  // the best of each tile
    if (kind == Kind::wide) l *= std::exp2(static_cast<float>(random.below(40) - 30));
  }
  return logits;
}

Request request_of(Random& random, Kind kind, int vocabulary, int top_k, float top_p) {
  Request r{.logits = logits_of(random, kind, vocabulary), .top_p = top_p, .top_k = top_k};
  const float temperatures[] = {1, 0.3f, 1.7f, 1e5f};
  r.temperature = temperatures[random.below(4)];
  r.uniform = random.uniform();
  r.sampled = random.below(2);
  if (random.below(3) == 0) r.min_p = random.below(2) ? random.between(1e-4f, 0.3f) : 1;
  if (random.below(4) == 0) {
    const int share = 1 + random.below(40);
    r.allowed.resize(static_cast<size_t>(cuda::mask_words(vocabulary)), ~uint64_t{0} << vocabulary % 64);
    if (vocabulary % 64 == 0) r.allowed.back() = 0;
    std::fill(r.allowed.begin(), r.allowed.end() - 1, 0);
    for (int id = random.below(vocabulary); id < vocabulary; id += 1 + random.below(share))
      r.allowed[static_cast<size_t>(id) / 64] |= uint64_t{1} << id % 64;
    return r;
  }
  for (int i = random.below(4); i > 0 && vocabulary > 8; i--) r.suppressed.push_back(random.below(vocabulary));
  if (random.below(3) == 0 && vocabulary > 8) {
    const auto best = std::ranges::max_element(r.logits) - r.logits.begin();
    r.suppressed.insert(r.suppressed.end(), {-1, static_cast<int32_t>(best), vocabulary, static_cast<int32_t>(best)});
  }
  return r;
}

}  // namespace

TEST("sample: small vocabularies, all of which are listed when anything is cut") {
  cuda_host::each_order([] {
    Random random(1);
    for (int vocabulary : {1, 2, 63, 64, 65, 255, 257, 700}) {
      std::vector<Request> requests;
      for (Kind kind : kKinds) {
        for (int top_k : {0, 1, 1 + random.below(vocabulary), vocabulary, vocabulary + 3})
          requests.push_back(request_of(random, kind, vocabulary, top_k, random.below(2) ? random.between(0, 1) : 1));
      }
      compare(requests);
    }
  });
}

TEST("sample: cuts within the list, beyond it, and of lists that overflow") {
  Random random(2);
  for (int vocabulary : {4096, 4097, 6500}) {
    std::vector<Request> requests;
    for (Kind kind : kKinds) {
      for (int top_k : {0, 50, vocabulary / 2, vocabulary - 1})
        requests.push_back(request_of(random, kind, vocabulary, top_k, random.below(2) ? random.between(0.1, 1) : 1));
      requests.push_back(request_of(random, kind, vocabulary, 0, 0.99f));
    }
    compare(requests);
  }
}

TEST("sample: a vocabulary as large as models have") {
  Random random(3);
  std::vector<Request> requests;
  for (Kind kind : kKinds) {
    requests.push_back(request_of(random, kind, 151936, 50, 0.95f));
    requests.push_back(request_of(random, kind, 151936, 0, 0.9f));
    requests.push_back(request_of(random, kind, 151936, 0, 1));
    requests.back().min_p = 0.05f;
  }
  requests.push_back(request_of(random, Kind::uniform, 151936, 0, 1));
  requests.push_back(request_of(random, Kind::ties, 151936, 5000, 1));
  requests.push_back(request_of(random, Kind::equal, 151936, 0, 1));
  compare(requests);
}

TEST("sample: bytes as cost.h tells, and as the kernel's comment does with top-k and top-p") {
  Random random(4);
  for (int vocabulary : {4096, 9999, 80000}) {
    std::vector<Request> requests;
    for (int i = 0; i < 4; i++)
      requests.push_back({.logits = logits_of(random, Kind::uniform, vocabulary), .uniform = random.uniform()});
    run(requests);
    const cuda::Cost plain = cuda::sample_cost(vocabulary, 4, 4);
    check_cost(plain);
    CHECK(claimed("sample.cu", "sample"));
    if (vocabulary < 80000) continue;
    const auto more_passes = [&](Kind kind, int top_k, float top_p, float min_p = 0) {
      run({{.logits = logits_of(random, kind, vocabulary), .top_p = top_p, .min_p = min_p, .top_k = top_k}});
      return static_cast<double>(cuda_host::last_launch().loaded - plain.loaded / 4) / (4.0 * vocabulary);
    };
    CHECK_NEAR(more_passes(Kind::uniform, 50, 0.95f), 0, 0.1);
    CHECK_NEAR(more_passes(Kind::spread, cuda::lm_head_tiles(vocabulary), 0.95f), 0, 0.1);
    CHECK_NEAR(more_passes(Kind::peaked, 0, 0.95f), 0, 0.1);
    CHECK_NEAR(more_passes(Kind::peaked, 0, 1, 0.05f), 0, 0.1);
    CHECK_NEAR(more_passes(Kind::equal, 0, 1, 0.05f), 1, 0.1);  // a list that overflows
    CHECK_NEAR(more_passes(Kind::peaked, 50, 0.95f, 0.05f), 0, 0.1);
    CHECK_NEAR(more_passes(Kind::uniform, 0, 0.9f), 4, 1);
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
