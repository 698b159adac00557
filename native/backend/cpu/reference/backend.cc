#include <algorithm>
#include <cmath>
#include <new>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu.h"
#include "backend/cpu/reference/attention.h"
#include "backend/cpu/reference/loops.h"
#include "backend/cpu/reference/weights.h"
#include "util/error.h"

namespace sdar::cpu {
namespace reference {
namespace {

constexpr int64_t kRowsPerUnit = 64;
constexpr size_t kHeadRows = 16;  // logits of so many rows are held at a time
constexpr std::align_val_t kAlignment{64};

struct AlignedDelete {
  void operator()(float* p) const { ::operator delete(p, kAlignment); }
};

class ReferenceBackend final : public HostBackend {
 public:
  std::string device() const override { return "cpu"; }
  std::string isa() const override { return "portable"; }
  int threads() const override { return 1; }
  std::string layout_id() const override { return "portable-2"; }

  size_t packed_bytes(const WeightSpec& spec) const override { return reference::packed_bytes(spec); }
  int64_t pack_units(const WeightSpec& spec) const override { return (spec.rows + kRowsPerUnit - 1) / kRowsPerUnit; }
  void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t unit_begin, int64_t unit_end,
            std::byte* packed) const override {
    pack_rows(spec, parts, unit_begin * kRowsPerUnit, std::min(unit_end * kRowsPerUnit, spec.rows), packed);
  }
  std::unique_ptr<Weight> adopt(const WeightSpec& spec, const std::byte* packed) override {
    auto weight = std::make_unique<PackedWeight>();
    weight->spec = spec;
    weight->data = packed;
    return weight;
  }

  size_t page_bytes(const ModelShape& shape, KvFormat format) const override {
    return Attention::page_bytes(shape, format);
  }
  void configure_ops(const ModelShape& shape, const CacheShape& cache, int32_t) override {
    shape_ = shape;
    attention_.configure(shape, cache);
  }
  float* allocate(size_t floats) override {
    auto* memory =
        static_cast<float*>(::operator new(std::max<size_t>(floats, 1) * sizeof(float), kAlignment, std::nothrow));
    if (!memory) throw Error(code::kOutOfMemory, "no memory for a workspace of " + std::to_string(floats) + " floats");
    std::fill(memory, memory + floats, 0.0f);
    allocations_.emplace_back(memory);
    return memory;
  }

  void begin_step(const StepRows& rows) override {
    step_ = rows;
    attention_.begin_step(rows.segments, rows.rows);
  }
  void embed(const EmbedArgs& args) override {
    for (size_t i = 0; i < step_.ids.size(); i++)
      packed(*args.table).load_row(step_.ids[i], args.x + i * args.table->spec.cols);
  }
  void norm_linear(const NormLinearArgs& args) override;
  void attention(const AttentionArgs& args) override { attention_.run(args); }
  void linear_add(const LinearAddArgs& args) override;
  void moe(const MoeArgs& args) override;
  void lm_head(const LmHeadArgs& args) override;

 private:
  void norm_rows(const float* x, int32_t m, const Weight& norm);
  /// f(in·Wᵀ) as backend/ops.h: the identity, or silu(gate)·up.
  void apply(const float* in, int32_t m, const Weight& weight, float* out);

  ModelShape shape_;
  StepRows step_;
  Attention attention_;
  std::vector<std::unique_ptr<float, AlignedDelete>> allocations_;
  std::vector<float> normed_, gate_up_, out_;
};

void ReferenceBackend::norm_rows(const float* x, int32_t m, const Weight& norm) {
  const int64_t n = norm.spec.cols;
  normed_.resize(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; i++) rms_norm(x + i * n, packed(norm).vector(), n, shape_.rms_eps, &normed_[i * n]);
}

void ReferenceBackend::apply(const float* in, int32_t m, const Weight& weight, float* out) {
  if (weight.spec.kind != WeightKind::gate_up) return matmul(in, m, packed(weight), out);
  gate_up_.resize(static_cast<size_t>(m * weight.spec.rows));
  matmul(in, m, packed(weight), gate_up_.data());
  silu_multiply(gate_up_.data(), m, weight.spec.rows / 2, out);
}

void ReferenceBackend::norm_linear(const NormLinearArgs& args) {
  norm_rows(args.x, args.m, *args.norm);
  apply(normed_.data(), args.m, *args.weight, args.out);
}

void ReferenceBackend::linear_add(const LinearAddArgs& args) {
  out_.resize(static_cast<size_t>(args.m * args.weight->spec.rows));
  apply(args.in, args.m, *args.weight, out_.data());
  for (size_t i = 0; i < out_.size(); i++) args.x[i] += out_[i];
  const size_t columns = static_cast<size_t>(args.weight->spec.rows);
  for (size_t i = 0; args.bias && i < out_.size(); i++) args.x[i] += packed(*args.bias).vector()[i % columns];
}

void ReferenceBackend::moe(const MoeArgs& args) {
  const int32_t experts = static_cast<int32_t>(args.gate_up.size());
  const int64_t hidden = args.norm->spec.cols, inner = args.gate_up[0]->spec.rows / 2;
  norm_rows(args.x, args.m, *args.norm);
  std::vector<float> router(experts), mlp(inner), down(hidden);
  std::vector<double> sum(hidden);
  std::vector<int32_t> chosen(experts);
  for (int32_t row = 0; row < args.m; row++) {
    const float* h = &normed_[row * hidden];
    matmul(h, 1, packed(*args.router), router.data());
    const float max = *std::max_element(router.begin(), router.end());
    double total = 0, chosen_total = 0;
    for (float& p : router) total += p = std::exp(p - max);

    chosen.resize(experts);
    std::iota(chosen.begin(), chosen.end(), 0);
    if (std::isfinite(total)) {  // a NaN cannot be ordered; it shows in the result whichever experts are taken
      std::stable_sort(chosen.begin(), chosen.end(), [&](int32_t a, int32_t b) { return router[a] > router[b]; });
    }
    chosen.resize(args.top_k);
    std::sort(chosen.begin(), chosen.end());
    for (int32_t e : chosen) chosen_total += router[e];

    std::fill(sum.begin(), sum.end(), 0.0);
    for (int32_t e : chosen) {
      const double p = router[e] / (args.renormalise ? chosen_total : total);
      apply(h, 1, *args.gate_up[e], mlp.data());
      matmul(mlp.data(), 1, packed(*args.down[e]), down.data());
      for (int64_t i = 0; i < hidden; i++) sum[i] += p * down[i];
    }
    for (int64_t i = 0; i < hidden; i++) args.x[row * hidden + i] += static_cast<float>(sum[i]);
  }
}

void ReferenceBackend::lm_head(const LmHeadArgs& args) {
  const int64_t hidden = args.norm->spec.cols, vocabulary = args.weight->spec.rows;
  for (size_t begin = 0; begin < step_.sampled.size(); begin += kHeadRows) {
    const size_t n = std::min(kHeadRows, step_.sampled.size() - begin);
    normed_.resize(n * hidden);
    for (size_t i = 0; i < n; i++) {
      const float* x = args.x + step_.sampled[begin + i].row * hidden;
      rms_norm(x, packed(*args.norm).vector(), hidden, shape_.rms_eps, &normed_[i * hidden]);
    }
    out_.resize(n * vocabulary);
    float* logits = step_.logits ? step_.logits + begin * vocabulary : out_.data();
    matmul(normed_.data(), static_cast<int32_t>(n), packed(*args.weight), logits);
    for (size_t i = 0; i < n; i++) {
      const std::span<float> row(logits + i * vocabulary, static_cast<size_t>(vocabulary));
      step_.tokens[begin + i] = choose_token(row, step_.sampled[begin + i]);
    }
  }
}

}  // namespace
}  // namespace reference

std::unique_ptr<HostBackend> make_reference_backend(int /*threads*/) {
  return std::make_unique<reference::ReferenceBackend>();
}

}  // namespace sdar::cpu
