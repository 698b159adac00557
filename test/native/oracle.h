// Naive formulas in double and small helpers that tests of any backend compare against. Written for the eye: whole
// matrices, full sorts, no pages.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "backend/host_step.h"
#include "util/half.h"

namespace oracle {

using namespace sdar;

/// Same numbers on every platform for a seed.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int below(int n) { return static_cast<int>(engine_() % static_cast<uint64_t>(n)); }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  float between(double low, double high) { return static_cast<float>(low + (high - low) * uniform()); }
  std::vector<float> floats(size_t n, double low = -1, double high = 1) {
    std::vector<float> v(n);
    for (float& x : v) x = between(low, high);
    return v;
  }

 private:
  std::mt19937_64 engine_;
};

// ---- weights ----

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> data;  ///< row-major
  const float* row(int64_t i) const { return data.data() + i * cols; }
};

inline Matrix random_matrix(Random& random, int64_t rows, int64_t cols, double scale = 1) {
  return {rows, cols, random.floats(static_cast<size_t>(rows * cols), -scale, scale)};
}

/// A packed weight with the memory it lies in.
struct Held {
  std::unique_ptr<std::byte, decltype(&std::free)> bytes{nullptr, &std::free};
  std::unique_ptr<Weight> weight;
  operator const Weight*() const { return weight.get(); }
  operator const Weight&() const { return *weight; }
};

inline Held hold(Backend& backend, WeightKind kind, WeightFormat format, const std::vector<Matrix>& parts) {
  WeightSpec spec{kind, format, 0, parts[0].cols};
  std::vector<SourceTensor> sources;
  for (const Matrix& part : parts) {
    spec.rows += part.rows;
    sources.push_back({reinterpret_cast<const std::byte*>(part.data.data()), DType::f32, part.rows, part.cols});
  }
  const size_t size = (backend.packed_bytes(spec) + 63) / 64 * 64;
  Held held;
  held.bytes.reset(static_cast<std::byte*>(std::aligned_alloc(64, size)));
  std::memset(held.bytes.get(), 0xA5, size);  // what packing leaves out shows
  for (int64_t unit = backend.pack_units(spec); unit-- > 0;)
    backend.pack(spec, sources, unit, unit + 1, held.bytes.get());
  held.weight = backend.adopt(spec, held.bytes.get());
  return held;
}
inline Held hold_vector(Backend& backend, const std::vector<float>& v) {
  return hold(backend, WeightKind::vector, WeightFormat::f32, {{1, static_cast<int64_t>(v.size()), v}});
}

/// x in groups as integers times max|x| / limit.
inline void round_to_integers(float* x, int64_t n, int64_t group, int limit) {
  for (int64_t begin = 0; begin < n; begin += group) {
    const int64_t end = std::min(n, begin + group);
    float largest = 0;
    for (int64_t i = begin; i < end; i++) largest = std::max(largest, std::abs(x[i]));
    const float scale = largest / static_cast<float>(limit);
    for (int64_t i = begin; i < end; i++) x[i] = scale > 0 ? std::nearbyint(x[i] / scale) * scale : 0;
  }
}

/// What a weight format makes of a matrix's rows, and (activations) of what is multiplied with it.
inline Matrix rounded(Matrix m, WeightFormat format, bool activations = false, int64_t group = 128) {
  for (int64_t i = 0; i < m.rows; i++) {
    float* row = m.data.data() + i * m.cols;
    if (format == WeightFormat::bf16) {
      for (int64_t j = 0; j < m.cols; j++) row[j] = round_to_bf16(row[j]);
    } else if (format != WeightFormat::f32) {
      round_to_integers(row, m.cols, group, format == WeightFormat::int8 || activations ? 127 : 7);
    }
  }
  return m;
}

// ---- ops ----

inline Matrix rms_norm(const Matrix& x, const std::vector<float>& norm, double eps) {
  Matrix y = x;
  for (int64_t i = 0; i < x.rows; i++) {
    double squares = 0;
    for (int64_t j = 0; j < x.cols; j++) squares += static_cast<double>(x.row(i)[j]) * x.row(i)[j];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.cols) + eps);
    for (int64_t j = 0; j < x.cols; j++) y.data[i * x.cols + j] = static_cast<float>(x.row(i)[j] * scale * norm[j]);
  }
  return y;
}

/// in·Wᵀ.
inline Matrix product(const Matrix& in, const Matrix& weight) {
  Matrix out{in.rows, weight.rows, std::vector<float>(static_cast<size_t>(in.rows * weight.rows))};
  for (int64_t i = 0; i < in.rows; i++) {
    for (int64_t j = 0; j < weight.rows; j++) {
      double sum = 0;
      for (int64_t k = 0; k < in.cols; k++) sum += static_cast<double>(in.row(i)[k]) * weight.row(j)[k];
      out.data[i * weight.rows + j] = static_cast<float>(sum);
    }
  }
  return out;
}

inline double silu(double x) { return x / (1 + std::exp(-x)); }

/// down(silu(gate·h)·(up·h)) without any rounding.
inline Matrix mlp(const Matrix& h, const Matrix& gate, const Matrix& up, const Matrix& down) {
  Matrix inner = product(h, gate);
  const Matrix u = product(h, up);
  for (size_t i = 0; i < inner.data.size(); i++) inner.data[i] = static_cast<float>(silu(inner.data[i]) * u.data[i]);
  return product(inner, down);
}

inline std::vector<double> softmax(std::span<const float> logits, double temperature = 1) {
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (float logit : logits) p.push_back(std::exp((logit - max) / temperature));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= total;
  return p;
}

/// Block attention of one whole sequence: qkv [positions, (heads + 2 kv_heads) head_dim] as ops/attention.h says,
/// position = row. Keys and values are rounded to the format.
inline Matrix attention(const Matrix& qkv, const ModelShape& shape, int block_length, KvFormat format,
                        const std::vector<float>& q_norm, const std::vector<float>& k_norm) {
  const int dim = shape.head_dim, positions = static_cast<int>(qkv.rows), group = shape.heads / shape.kv_heads;
  const RopeScaling& scaling = shape.rope_scaling;
  const std::vector<float> frequencies = inverse_frequencies(shape);  // the scaled ones have a test of their own
  const auto head = [&](int position, int index, const std::vector<float>* norm) {  // index over q, k and v heads
    const float* begin = qkv.row(position) + index * dim;
    Matrix v{1, dim, std::vector<float>(begin, begin + dim)};
    if (norm) {
      v = rms_norm(v, *norm, shape.rms_eps);
      const std::vector<float> x = v.data;
      for (int i = 0; i < dim / 2; i++) {
        const double angle = scaling.kind == RopeScaling::Kind::none
                                 ? position * std::pow(static_cast<double>(shape.rope_theta), -2.0 * i / dim)
                                 : position * static_cast<double>(frequencies[i]);
        const double cos = scaling.attention_factor * std::cos(angle), sin = scaling.attention_factor * std::sin(angle);
        v.data[i] = static_cast<float>(x[i] * cos - x[i + dim / 2] * sin);
        v.data[i + dim / 2] = static_cast<float>(x[i + dim / 2] * cos + x[i] * sin);
      }
    }
    if (index >= shape.heads && format == KvFormat::bf16) v = rounded(v, WeightFormat::bf16);
    if (index >= shape.heads && format == KvFormat::int8) v = rounded(v, WeightFormat::int8, false, dim);
    return v.data;
  };
  Matrix out{positions, shape.heads * dim, std::vector<float>(static_cast<size_t>(positions) * shape.heads * dim)};
  for (int h = 0; h < shape.heads; h++) {
    const int kv = h / group;
    std::vector<std::vector<float>> keys, values;
    for (int p = 0; p < positions; p++) {
      keys.push_back(head(p, shape.heads + kv, &k_norm));
      values.push_back(head(p, shape.heads + shape.kv_heads + kv, nullptr));
    }
    for (int p = 0; p < positions; p++) {
      const std::vector<float> q = head(p, h, &q_norm);
      std::vector<float> scores;
      for (int k = 0; k < positions && k / block_length <= p / block_length; k++) {
        const double dot = std::inner_product(q.begin(), q.end(), keys[k].begin(), 0.0);
        scores.push_back(static_cast<float>(dot / std::sqrt(static_cast<double>(dim))));
      }
      const std::vector<double> weight = softmax(scores);
      for (int i = 0; i < dim; i++) {
        double sum = 0;
        for (size_t k = 0; k < weight.size(); k++) sum += weight[k] * values[k][i];
        out.data[static_cast<size_t>(p) * out.cols + h * dim + i] = static_cast<float>(sum);
      }
    }
  }
  return out;
}

// ---- head ----

/// `margin`: how near the choice was to another one (in probability, and in logits when greedy), so that a backend of
/// lower precision can be excused. `support`: the ids that could have been sampled, ascending, with their
/// probabilities.
struct Choice {
  SampledToken result;
  double margin = 1;
  std::vector<std::pair<int32_t, double>> support;
};

/// Ids by falling logit, then rising id: those that may be chosen, or all.
inline std::vector<int32_t> ranked_ids(std::span<const float> logits, const SampledRow& request, bool all = false) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); id++) {
    const bool suppressed =
        std::find(request.suppressed.begin(), request.suppressed.end(), id) != request.suppressed.end();
    const bool allowed = !request.allowed || request.allowed[id / 64] >> id % 64 & 1;
    if (all || (allowed && !suppressed)) ids.push_back(id);
  }
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return ids;
}

/// Whether `best` is the first of `ids` with their logits, then nothing.
inline bool tells_best(std::span<const RankedToken> best, std::span<const int32_t> ids, std::span<const float> logits) {
  for (size_t i = 0; i < best.size(); i++) {
    if (i >= ids.size() ? best[i].id != -1 : best[i].id != ids[i] || best[i].logit != logits[ids[i]]) return false;
  }
  return true;
}

/// What step.h says of token and confidence, on logits that already hold the bias.
inline Choice choose(std::span<const float> logits, const SampledRow& request) {
  Choice choice;
  SampledToken& r = choice.result;
  const double temperature = request.temperature > 0 ? request.temperature : 1;
  const std::vector<double> plain = softmax(logits), tempered = softmax(logits, temperature);
  r.max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - r.max);
  r.logsumexp = static_cast<float>(r.max + std::log(sum));
  double entropy = 0;
  for (double p : tempered) entropy -= p > 0 ? p * std::log(p) : 0;
  r.entropy = static_cast<float>(entropy);

  std::vector<int32_t> ids = ranked_ids(logits, request);

  if (request.temperature > 0) {
    if (request.top_k > 0) ids.resize(std::min(ids.size(), static_cast<size_t>(request.top_k)));
    std::vector<float> kept;
    for (int32_t id : ids) kept.push_back(logits[id]);
    std::vector<double> p = softmax(kept, temperature);
    if (request.top_p < 1) {
      double mass = 0;
      size_t n = 0;
      do {
        mass += p[n++];
        choice.margin = std::min(choice.margin, std::abs(mass - request.top_p));
      } while (n < p.size() && mass < request.top_p);
      ids.resize(n);
      kept.resize(n);
      p = softmax(kept, temperature);
    }
    if (request.min_p > 0) {
      size_t n = 0;
      for (; n < p.size() && p[n] >= request.min_p * p[0]; n++) {
      }
      for (double each : p) choice.margin = std::min(choice.margin, std::abs(each - request.min_p * p[0]));
      ids.resize(n);
      kept.resize(n);
      p = softmax(kept, temperature);
    }
    for (size_t i = 0; i < ids.size(); i++) choice.support.emplace_back(ids[i], p[i]);
    std::sort(choice.support.begin(), choice.support.end());
    double below = 0;
    r.token = -1;
    for (const auto& [id, probability] : choice.support) {
      below += probability;
      choice.margin = std::min(choice.margin, std::abs(below - request.uniform));
      if (r.token < 0 && (request.uniform < below || id == choice.support.back().first)) {
        r.token = id;
        r.confidence = static_cast<float>(request.confidence == Confidence::sampled ? probability : tempered[id]);
      }
    }
  } else {
    r.token = ids[0];
    r.confidence = static_cast<float>(plain[ids[0]]);
    if (ids.size() > 1 && logits[ids[1]] != logits[ids[0]]) choice.margin = logits[ids[0]] - logits[ids[1]];
  }
  r.logprob = static_cast<float>(static_cast<double>(logits[r.token]) - r.max - std::log(sum));
  return choice;
}

/// The embedding op of a step with these ids.
inline void embed(HostBackend& backend, const Weight& table, std::span<const int32_t> ids, float* x) {
  backend.begin_step({.ids = ids});
  backend.embed({.table = &table, .x = x});
}

/// The lm_head op of a step with these sampled rows.
inline void lm_head(HostBackend& backend, const LmHeadArgs& args, std::span<const SampledRow> sampled,
                    std::span<SampledToken> tokens, float* logits = nullptr) {
  backend.begin_step({.sampled = sampled, .tokens = tokens, .logits = logits});
  backend.lm_head(args);
}

}  // namespace oracle
