// The CPU's attention over poisoned pages, and the same by plain double loops.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu.h"
#include "check.h"
#include "util/half.h"

namespace attention {

using namespace sdar;
using cpu::attention_kernels;

constexpr KvFormat kFormats[] = {KvFormat::f32, KvFormat::bf16, KvFormat::int8};
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline ModelShape shape_of(int32_t kv_heads, int32_t group, int32_t head_dim) {
  ModelShape s;
  s.layers = 2;
  s.heads = kv_heads * group;
  s.kv_heads = kv_heads;
  s.head_dim = head_dim;
  s.context = 4096;
  s.rope_theta = 10000.0f;
  return s;
}

/// A sequence with its random projections.
struct Sequence {
  ModelShape shape;
  int32_t block = 1, length = 0;
  std::vector<float> qkv;  ///< [length, (heads + 2 kv_heads) · head_dim]
  std::vector<int32_t> pages;
  int32_t cols() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_dim; }
  int32_t out_cols() const { return shape.heads * shape.head_dim; }
};

inline Sequence sequence(const ModelShape& shape, int32_t block, int32_t blocks, uint32_t seed) {
  Sequence s{shape, block, block * blocks, {}, {}};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  s.qkv.resize(static_cast<size_t>(s.length) * s.cols());
  for (float& x : s.qkv) x = normal(random);
  return s;
}

inline std::vector<float> norm_weights(int32_t head_dim, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
  std::vector<float> w(head_dim);
  for (float& x : w) x = uniform(random);
  return w;
}

/// Attention over poisoned pages; sequences get page ids in an order that is not theirs.
struct Device {
  ModelShape shape;
  cpu::Pool pool;
  cpu::Attention attention;
  std::vector<float> q_norm, k_norm;
  std::vector<int32_t> free;

  Device(const ModelShape& s, KvFormat format, const std::string& isa, int threads, int32_t pages = 64)
      : shape(s),
        pool(threads),
        attention(pool, attention_kernels(isa.c_str())),
        q_norm(norm_weights(s.head_dim, 1)),
        k_norm(norm_weights(s.head_dim, 2)) {
    attention.configure(s, {pages, format}, 1024);
    const auto memory = attention.pages().memory();
    std::fill(memory.begin(), memory.end(), std::byte{0xff});  // NaN in f32 and bf16, NaN scales in int8
    for (int32_t p = 0; p < pages; p++) free.push_back(p * 5 % pages);
  }

  struct Part {
    Sequence* sequence;
    int32_t begin, end;       ///< positions
    std::vector<float>* out;  ///< [length, out_cols], rows [begin, end) are set
  };

  /// One step in both layers; the last layer's result counts. Layer 0 gets other inputs, to see that layers keep apart.
  void step(const std::vector<Part>& parts) {
    std::vector<Segment> segments;
    int32_t rows = 0;
    for (const Part& p : parts) {
      Sequence& s = *p.sequence;
      while (static_cast<int32_t>(s.pages.size()) * tokens_per_page(s.block) < p.end) {
        s.pages.push_back(free.back());
        free.pop_back();
      }
      segments.push_back({rows, p.end - p.begin, p.begin, s.block, s.pages.data()});
      rows += p.end - p.begin;
    }
    const int32_t cols = parts[0].sequence->cols(), out_cols = parts[0].sequence->out_cols();
    std::vector<float> out(static_cast<size_t>(rows) * out_cols, kNaN), qkv(static_cast<size_t>(rows) * cols);
    attention.begin_step(segments, rows);
    for (int32_t layer = 0; layer < 2; layer++) {
      for (size_t i = 0; i < parts.size(); i++) {
        const float* from = &parts[i].sequence->qkv[static_cast<size_t>(parts[i].begin) * cols];
        const size_t n = static_cast<size_t>(segments[i].rows) * cols;
        for (size_t j = 0; j < n; j++) {
          qkv[static_cast<size_t>(segments[i].row) * cols + j] = layer == 0 ? 0.5f - from[n - 1 - j] : from[j];
        }
      }
      attention.run({layer, qkv.data(), out.data(), nullptr, nullptr}, q_norm.data(), k_norm.data());
    }
    for (size_t i = 0; i < parts.size(); i++) {
      const Part& p = parts[i];
      p.out->resize(static_cast<size_t>(p.sequence->length) * out_cols, kNaN);
      std::copy_n(&out[static_cast<size_t>(segments[i].row) * out_cols],
                  static_cast<size_t>(segments[i].rows) * out_cols,
                  p.out->begin() + static_cast<size_t>(p.begin) * out_cols);
    }
  }

  /// The whole sequence alone, in steps of `step_rows` rows (a multiple of the block).
  std::vector<float> all(Sequence& s, int32_t step_rows) {
    std::vector<float> out;
    for (int32_t p = 0; p < s.length; p += step_rows) step({{&s, p, std::min(p + step_rows, s.length), &out}});
    free.insert(free.end(), s.pages.begin(), s.pages.end());
    s.pages.clear();
    return out;
  }
};

inline std::vector<double> rotated(const float* x, const std::vector<float>& norm, const ModelShape& s,
                                   int32_t position) {
  const int32_t n = s.head_dim;
  double squares = 0;
  for (int32_t i = 0; i < n; i++) squares += static_cast<double>(x[i]) * x[i];
  std::vector<double> y(n), z(n);
  for (int32_t i = 0; i < n; i++) y[i] = x[i] / std::sqrt(squares / n + s.rms_eps) * norm[i];
  for (int32_t i = 0; i < n / 2; i++) {
    const float frequency = 1.0f / std::pow(s.rope_theta, static_cast<float>(2 * i) / n);
    const double angle = static_cast<float>(position) * frequency;
    const double cosine = std::cos(angle), sine = std::sin(angle);
    z[i] = y[i] * cosine - y[i + n / 2] * sine;
    z[i + n / 2] = y[i + n / 2] * cosine + y[i] * sine;
  }
  return z;
}

inline void round_to(KvFormat format, std::vector<double>& x) {
  if (format == KvFormat::int8) {
    float top = 0;
    for (double v : x) top = std::max(top, static_cast<float>(std::abs(v)));
    const float scale = top / 127;
    for (double& v : x) v = scale > 0 ? scale * std::nearbyint(static_cast<float>(v) / scale) : 0;
  } else {
    for (double& v : x) v = format == KvFormat::bf16 ? round_to_bf16(static_cast<float>(v)) : static_cast<float>(v);
  }
}

/// Rows [begin, end) of the sequence by the definition, in double.
inline std::vector<double> oracle(const Sequence& s, KvFormat format, int32_t begin, int32_t end, const Device& d) {
  const ModelShape& m = s.shape;
  const int32_t n = m.head_dim, group = m.heads / m.kv_heads;
  std::vector<double> out(static_cast<size_t>(end - begin) * s.out_cols());
  for (int32_t kv = 0; kv < m.kv_heads; kv++) {
    std::vector<std::vector<double>> keys, values;
    for (int32_t p = 0; p < end; p++) {
      const float* row = &s.qkv[static_cast<size_t>(p) * s.cols()];
      keys.push_back(rotated(row + (m.heads + kv) * n, d.k_norm, m, p));
      const float* v = row + (m.heads + m.kv_heads + kv) * n;
      values.emplace_back(v, v + n);
      round_to(format, keys.back());
      round_to(format, values.back());
    }
    for (int32_t p = begin; p < end; p++) {
      for (int32_t h = kv * group; h < (kv + 1) * group; h++) {
        const std::vector<double> q = rotated(&s.qkv[static_cast<size_t>(p) * s.cols() + h * n], d.q_norm, m, p);
        std::vector<double> weights;
        double max = -1e300, sum = 0;
        for (int32_t k = 0; k / s.block <= p / s.block; k++) {
          double score = 0;
          for (int32_t i = 0; i < n; i++) score += q[i] * keys[k][i];
          weights.push_back(score / std::sqrt(static_cast<double>(n)));
          max = std::max(max, weights.back());
        }
        for (double& w : weights) sum += w = std::exp(w - max);
        double* to = &out[static_cast<size_t>(p - begin) * s.out_cols() + h * n];
        for (size_t k = 0; k < weights.size(); k++) {
          for (int32_t i = 0; i < n; i++) to[i] += weights[k] / sum * values[k][i];
        }
      }
    }
  }
  return out;
}

/// Largest error allowed, values being about 1: a key or value may round the other way; some kernels round q and
/// weights.
struct Tolerance {
  double worst, rms = worst / 8;
};

inline Tolerance tolerance(KvFormat format, const std::string& isa) {
  if (format == KvFormat::f32) return {1e-5};
  if (attention_kernels(isa.c_str()).formats[static_cast<int>(format)].bf16_operands) return {0.03};
  if (format == KvFormat::bf16) return {4e-3};
  return {.worst = 1.2e-2, .rms = 1e-3};  // a single int8 value that rounds the other way is 9e-3
}

inline void check_rows(const Sequence& s, const std::vector<float>& got, const std::vector<double>& expected,
                       int32_t begin, Tolerance allowed, const std::string& what) {
  double worst = 0, squares = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double error = std::abs(got[static_cast<size_t>(begin) * s.out_cols() + i] - expected[i]);
    worst = error <= worst ? worst : error;  // a NaN stays
    squares += error * error;
  }
  const double rms = std::sqrt(squares / static_cast<double>(expected.size()));
  if (!(worst <= allowed.worst) || !(rms <= allowed.rms)) {
    check::fail(__FILE__, __LINE__,
                what + ": largest error " + std::to_string(worst) + ", rms " + std::to_string(rms) + ", allowed " +
                    std::to_string(allowed.worst));
  }
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// One name for every table of kernels that this machine runs.
inline std::vector<std::string> kernel_sets() {
  std::vector<std::string> names;
  for (const std::string& isa : cpu::instruction_sets()) {
    const auto same = [&](const std::string& other) {
      return &attention_kernels(other.c_str()) == &attention_kernels(isa.c_str());
    };
    if (std::none_of(names.begin(), names.end(), same)) names.push_back(isa);
  }
  return names;
}

inline std::string describe(const Sequence& s, KvFormat format, const std::string& isa) {
  const ModelShape& m = s.shape;
  return isa + " " + name_of(format) + " kv_heads " + std::to_string(m.kv_heads) + " group " +
         std::to_string(m.heads / m.kv_heads) + " head_dim " + std::to_string(m.head_dim) + " block " +
         std::to_string(s.block) + " length " + std::to_string(s.length);
}

}  // namespace attention
