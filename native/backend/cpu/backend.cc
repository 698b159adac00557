// The fast CPU backend: ops over packed panels with the kernels of one instruction set.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/buffer.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/lm_head.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/moe.h"
#include "backend/cpu/packing.h"
#include "backend/cpu/step_threads.h"
#include "util/error.h"
#include "util/machine.h"
#include "util/mapped_file.h"

namespace sdar::cpu {
namespace {

using Clock = std::chrono::steady_clock;

class CpuBackend final : public HostBackend {
 public:
  CpuBackend(const Kernels& kernels, std::shared_ptr<Pool> pool)
      : kernels_(kernels),
        shared_pool_(std::move(pool)),
        pool_(*shared_pool_),
        step_threads_(pool_.size()),
        matmul_(kernels, pool_),
        moe_(matmul_),
        lm_head_(matmul_),
        attention_(pool_, kernels.attention) {}

  std::string device() const override { return "cpu"; }
  std::string isa() const override { return kernels_.isa; }
  int threads() const override { return pool_.size(); }
  std::shared_ptr<Pool> pool() const { return shared_pool_; }
  std::string layout_id() const override { return "panel32-2"; }

  size_t packed_bytes(const WeightSpec& spec) const override { return cpu::packed_bytes(spec); }
  int64_t pack_units(const WeightSpec& spec) const override { return cpu::pack_units(spec); }
  void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t unit_begin, int64_t unit_end,
            std::byte* packed) const override {
    pack_panels(spec, parts, unit_begin, unit_end, packed);
  }
  std::unique_ptr<Weight> adopt(const WeightSpec& spec, const std::byte* packed) override {
    return std::make_unique<PackedWeight>(describe(spec, packed));
  }

  size_t page_bytes(const ModelShape& shape, KvFormat format) const override {
    return Attention::page_bytes(shape, format);
  }
  void configure_ops(const ModelShape& shape, const CacheShape& cache, int32_t max_rows) override {
    eps_ = shape.rms_eps;
    attention_.configure(shape, cache, max_rows);
  }
  float* allocate(size_t floats) override {
    // Pages that no step needs are never there.
    allocations_.push_back(map_memory(floats * sizeof(float)));
    return reinterpret_cast<float*>(allocations_.back().get());
  }

  void interrupt() override {
    HostBackend::interrupt();
    pool_.interrupt();  // an op may take long by itself
  }

  void begin_step(const StepRows& rows) override {
    pool_.use(step_threads_.choose(rows.rows));
    began_ = Clock::now();
    step_ = rows;
    attention_.begin_step(rows.segments, rows.rows);
  }

  void end_step() override { step_threads_.took(std::chrono::duration<double>(Clock::now() - began_).count()); }

  void embed(const EmbedArgs& args) override {
    const PackedWeight& table = packed(*args.table);
    const int64_t rows = static_cast<int64_t>(step_.ids.size()), cols = table.spec.cols;
    matmul_.parallel_for(rows, rows * cols * 16,
                         [&](int64_t i, int) { unpack_row(table, step_.ids[i], args.x + i * cols); });
  }

  void norm_linear(const NormLinearArgs& args) override {
    const PackedWeight& weight = packed(*args.weight);
    const bool gate_up = weight.spec.kind == WeightKind::gate_up;
    matmul_.run({args.x, weight.spec.cols, packed(*args.norm).vector(), eps_}, weight, args.m,
                gate_up ? Epilogue::silu_mul : Epilogue::store, args.out, activations_);
  }

  void linear_add(const LinearAddArgs& args) override {
    const PackedWeight& weight = packed(*args.weight);
    matmul_.run({args.in, weight.spec.cols}, weight, args.m, Epilogue::add, args.x, activations_);
    if (!args.bias) return;
    const float* bias = packed(*args.bias).vector();
    const int64_t columns = weight.spec.rows;
    matmul_.parallel_for(args.m, args.m * columns, [&](int64_t row, int) {
      for (int64_t i = 0; i < columns; i++) args.x[row * columns + i] += bias[i];
    });
  }

  void attention(const AttentionArgs& args) override {
    attention_.run(args, packed(*args.q_norm).vector(), packed(*args.k_norm).vector());
  }
  void moe(const MoeArgs& args) override { moe_.run(args, eps_); }
  int64_t experts_read() const override { return moe_.experts_read(); }
  void lm_head(const LmHeadArgs& args) override { lm_head_.run(args, step_, eps_); }

 private:
  const Kernels& kernels_;
  std::shared_ptr<Pool> shared_pool_;
  Pool& pool_;
  StepThreads step_threads_;
  Clock::time_point began_;
  Matmul matmul_;
  Moe moe_;
  LmHead lm_head_;
  Attention attention_;
  ActivationRows activations_;
  std::vector<std::shared_ptr<std::byte>> allocations_;
  float eps_ = 1e-6f;
  StepRows step_;
};

}  // namespace

std::unique_ptr<HostBackend> make_backend(const Options& options) {
  const std::string isa = choose_isa(options.isa);
  const int threads = options.threads > 0 ? options.threads : usable_cores();
  if (isa == "portable") return make_reference_backend(threads);
  const auto* beside = dynamic_cast<const CpuBackend*>(options.beside);
  const bool shared = beside && beside->threads() == threads;
  return std::make_unique<CpuBackend>(*kernels_for(isa.c_str()),
                                      shared ? beside->pool() : std::make_shared<Pool>(threads));
}

}  // namespace sdar::cpu
