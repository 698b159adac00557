// GEMMs of a layer, the lm_head, and those of a mixture of experts.
#include <string>

#include "backend/cuda/kernels/lm_head.h"
#include "backend/cuda/kernels/moe.h"
#include "backend/cuda/kernels/rowwise.h"
#include "backend/cuda/packing.h"
#include "kernel_bench.h"

namespace gpu_bench {

using namespace sdar;
using cuda::DeviceMatrix;

namespace {

constexpr int kSmallTokens[] = {1, 4, 8, 16, 32, 64, 128, 256, 512};
constexpr int kLargeTokens[] = {128, 256, 512, 1024, 2048};

/// The kernels that can compute a matmul; of gemm_warpgroup those of so many token tiles.
enum class Kernel : int32_t { small = 0, large = 1, warpgroup = 16, wide_warpgroup = 32 };

std::string name_of(Kernel kernel) {
  switch (kernel) {
    case Kernel::small:
      return "gemm";
    case Kernel::large:
      return "gemm_large";
    default:
      return "gemm_warpgroup<" + std::to_string(static_cast<int32_t>(kernel)) + ">";
  }
}

void launch(cuda::Stream stream, Kernel kernel, cuda::GemmParams args) {
  switch (kernel) {
    case Kernel::small:
      return cuda::gemm(stream, args);
    case Kernel::large:
      return cuda::gemm_large(stream, args);
    default:
      args.token_tiles = static_cast<int32_t>(kernel);
      return cuda::gemm_warpgroup(stream, args);
  }
}

bool has_warpgroups() {
  int major = 0;
  succeed(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
  return major == 9;
}
constexpr int kYardstickTokens = 16;  // from here on cuBLASLt is timed beside

/// Rows to sample. Of random weights the logits are spread wide; a confident model's mass is in a few ids.
struct Sampling {
  const char* name;
  int32_t top_k;
  bool confident;
};
constexpr Sampling kSampling[] = {{"sample (top-k 50, top-p 0.95)", 50, false},
                                  {"sample (top-k 50, top-p 0.95), confident", 50, true},
                                  {"sample (top-p 0.95)", 0, false},
                                  {"sample (top-p 0.95), confident", 0, true}};

size_t bytes_of(const DeviceMatrix& m) { return cuda::packed_bytes({m.kind, m.format, m.rows, m.cols}); }

std::string tokens_text(int tokens) { return std::to_string(tokens) + " tokens"; }

/// What goes in and out of a matmul, for up to `tokens` tokens.
struct Operands {
  std::unique_ptr<DeviceArray<uint16_t>> in, tiles;
  DeviceArray<float> out, partials;
  DeviceArray<uint32_t> counters;

  Operands(const DeviceMatrix& m, int tokens)
      : in(random_tiles(tokens, m.cols)),
        tiles(random_tiles(tokens, m.outputs())),
        out(static_cast<size_t>(tokens) * m.rows),
        partials(cuda::gemm_partial_floats(m, tokens)),
        counters(cuda::gemm_counters(m, tokens)) {
    out.zero();
    counters.zero();
  }
};

/// cuBLASLt's time for the same matmul of bf16 weights, the copies of the weight one after the other.
void add_yardstick(KernelBench& bench, nlohmann::ordered_json& result, const DeviceMatrix& m, int tokens,
                   const DeviceArray<uint8_t>& pool, int copies) {
  if (!bench.lt || !bench.lt->prepare(m.rows, m.cols, tokens, m.kind == WeightKind::gate_up)) return;
  const DeviceArray<float> y(static_cast<size_t>(tokens) * m.rows);
  const auto x = random_tiles(tokens, m.cols);
  const size_t bytes = static_cast<size_t>(m.rows) * m.cols * 2;
  succeed(cudaDeviceSynchronize(), "filling");
  const double seconds = bench.timer.seconds([&](cuda::Stream s, int i) {
    bench.lt->multiply(s, pool.get() + static_cast<size_t>(i % copies) * bytes, x->get(), y.get());
  });
  result["cublasLtMicroseconds"] = 1e6 * seconds;
  result["ofCublasLt"] = 1e6 * seconds / result["microseconds"].get<double>();
}

void measure_matmul(KernelBench& bench, const std::string& model, const std::string& name, DeviceMatrix m,
                    cuda::Epilogue epilogue, int tokens, Kernel kernel, bool pdl) {
  const DeviceArray<uint8_t>& pool = bench.weights(m.format);
  const size_t bytes = bytes_of(m);
  const int copies = bench.copies(bytes);
  const Operands o(m, tokens);
  const Work work{static_cast<double>(bytes) + 2.0 * tokens * m.cols +
                      tokens * (epilogue == cuda::Epilogue::silu_mul ? 1.0 * m.rows
                                : epilogue == cuda::Epilogue::add    ? 8.0 * m.rows
                                                                     : 4.0 * m.rows),
                  2.0 * m.rows * m.cols * tokens};
  auto* result = bench.measure(name_of(kernel) + (pdl ? "+pdl " : " ") + name, model, name_of(m.format),
                               tokens_text(tokens), work, [&](cuda::Stream s, int i) {
                                 m.data = pool.get() + static_cast<size_t>(i % copies) * bytes;
                                 launch(s, kernel,
                                        {m, o.in->get(), tokens, epilogue, o.out.get(), o.tiles->get(),
                                         o.partials.get(), o.counters.get(), pdl});
                               });
  if (result && m.format == WeightFormat::bf16 && tokens >= kYardstickTokens)
    add_yardstick(bench, *result, m, tokens, pool, copies);
}

}  // namespace

void measure_gemm(KernelBench& bench, const NamedShape& model) {
  const ModelShape& s = model.shape;
  const int32_t attended = s.heads * s.head_dim, qkv = attended + 2 * s.kv_heads * s.head_dim;
  struct {
    const char* name;
    WeightKind kind;
    int32_t rows, cols;
    cuda::Epilogue epilogue;
  } const matrices[] = {
      {"gate_up", WeightKind::gate_up, 2 * s.intermediate, s.hidden, cuda::Epilogue::silu_mul},
      {"down", WeightKind::linear, s.hidden, s.intermediate, cuda::Epilogue::add},
      {"qkv", WeightKind::linear, qkv, s.hidden, cuda::Epilogue::store},
      {"o", WeightKind::linear, s.hidden, attended, cuda::Epilogue::add},
  };
  for (WeightFormat format : bench.options.kernel_formats) {
    for (const auto& m : matrices) {
      const DeviceMatrix matrix{nullptr, m.kind, format, m.rows, m.cols};
      const auto measure = [&](int tokens, Kernel kernel, bool pdl = false) {
        measure_matmul(bench, model.name, m.name, matrix, m.epilogue, tokens, kernel, pdl);
      };
      for (int tokens : kSmallTokens) measure(tokens, Kernel::small);
      for (int tokens : kLargeTokens) measure(tokens, Kernel::large);
      if (!has_warpgroups()) continue;
      for (int tokens : kSmallTokens) measure(tokens, Kernel::small, true);
      for (Kernel kernel : {Kernel::warpgroup, Kernel::wide_warpgroup}) {
        if (!cuda::warpgroup_takes(matrix, static_cast<int32_t>(kernel))) continue;
        for (int tokens : kLargeTokens) measure(tokens, kernel);
      }
    }
  }
}

void measure_lm_head(KernelBench& bench, const NamedShape& model) {
  const ModelShape& s = model.shape;
  for (WeightFormat format : bench.options.kernel_formats) {
    if (format == WeightFormat::int4) continue;  // is held as int8
    DeviceMatrix m{nullptr, WeightKind::table, format, s.vocabulary, s.hidden};
    const DeviceArray<uint8_t>& pool = bench.weights(format);
    const size_t bytes = bytes_of(m), tiles = static_cast<size_t>(cuda::lm_head_tiles(s.vocabulary));
    const int copies = bench.copies(bytes);
    for (int rows : {4, 32, 64, 320}) {
      // Sampling needs logits: of the first few rows.
      const int sampled = std::min(rows, 32);
      const std::vector<cuda::DeviceSampledRow> greedy(static_cast<size_t>(rows));
      const DeviceArray<cuda::DeviceSampledRow> device_greedy(greedy);
      const DeviceArray<int32_t> count(std::vector<int32_t>{rows}), few(std::vector<int32_t>{sampled}),
          best(tiles * rows);
      const DeviceArray<float> numbers(tiles * rows * 4), logits(static_cast<size_t>(sampled) * s.vocabulary);
      const DeviceArray<cuda::DeviceSampledToken> results(static_cast<size_t>(rows));
      const DeviceArray<int32_t> likely(std::vector<int32_t>{1000, s.vocabulary / 2, s.vocabulary - 1000});
      const DeviceArray<float> likely_values(std::vector<float>{1000, 999, 998.5f});
      const auto in = random_tiles(rows, s.hidden);
      const cuda::LmHeadBuffers buffers{numbers.get(), best.get(), logits.get(), results.get()};
      const cuda::SampledRows lists{device_greedy.get(), count.get(), rows, nullptr, nullptr, nullptr};
      const auto at = [&](int i) {
        m.data = pool.get() + static_cast<size_t>(i % copies) * bytes;
        return m;
      };
      const std::string size = std::to_string(rows) + " rows", held = name_of(format);
      const double partial = 20.0 * static_cast<double>(tiles) * rows;
      bench.measure(
          "lm_head", model.name, held, size,
          {static_cast<double>(bytes) + 2.0 * rows * s.hidden + partial, 2.0 * s.vocabulary * s.hidden * rows},
          [&](cuda::Stream stream, int i) {
            cuda::lm_head(stream, {at(i), in->get(), lists, buffers});
          });
      bench.measure("lm_head_merge", model.name, held, size, {partial, 0}, [&](cuda::Stream stream, int) {
        cuda::lm_head_merge(stream, {s.vocabulary, lists, buffers});
      });
      if (rows > 32) continue;
      for (const Sampling& how : kSampling) {
        std::vector<cuda::DeviceSampledRow> warm(static_cast<size_t>(sampled));
        for (int i = 0; i < sampled; i++) {
          warm[static_cast<size_t>(i)] = {
              .uniform = 0.5, .temperature = 0.8f, .top_p = 0.95f, .top_k = how.top_k, .bias_count = how.confident * 3};
          warm[static_cast<size_t>(i)].logits = i;
        }
        const DeviceArray<cuda::DeviceSampledRow> device_warm(warm);
        const cuda::SampledRows warm_lists{device_warm.get(), few.get(),    sampled,
                                           nullptr,           likely.get(), likely_values.get()};
        cuda::lm_head(nullptr, {at(0), in->get(), warm_lists, buffers});
        cuda::lm_head_merge(nullptr, {s.vocabulary, warm_lists, buffers});
        bench.measure(how.name, model.name, held, size, {4.0 * s.vocabulary * sampled, 0},
                      [&](cuda::Stream stream, int) {
                        cuda::sample(stream, {s.vocabulary, warm_lists, buffers});
                      });
      }
    }
  }
}

void measure_experts(KernelBench& bench, const NamedShape& model) {
  const ModelShape& s = model.shape;
  for (WeightFormat format : bench.options.kernel_formats) {
    const DeviceMatrix gate_up{nullptr, WeightKind::gate_up, format, 2 * s.moe_intermediate, s.hidden},
        down{nullptr, WeightKind::linear, format, s.hidden, s.moe_intermediate};
    const DeviceArray<uint8_t>& pool = bench.weights(format);
    const auto pointers = [&](const DeviceMatrix& m) {
      std::vector<const uint8_t*> list;
      const size_t places = std::max<size_t>(1, pool.size() / bytes_of(m));
      for (int e = 0; e < s.experts; e++) list.push_back(pool.get() + (static_cast<size_t>(e) % places) * bytes_of(m));
      return list;
    };
    const DeviceArray<const uint8_t*> up_pointers(pointers(gate_up)), down_pointers(pointers(down));
    for (int tokens : {4, 64, 512}) {
      const int rows = cuda::grouped_rows(tokens, s.experts, s.experts_per_token);
      const size_t choices = static_cast<size_t>(tokens) * s.experts_per_token;
      const auto x = random_floats(static_cast<size_t>(tokens) * s.hidden, -1, 1),
                 norm = random_floats(s.hidden, 0.5, 1.5),
                 router = random_floats(static_cast<size_t>(s.experts) * s.hidden, -0.1f, 0.1f);
      const DeviceArray<int32_t> experts(choices), begin(s.experts), count(s.experts), row_tokens(rows),
          places(choices);
      const DeviceArray<float> shares(choices), out(static_cast<size_t>(rows) * s.hidden);
      const auto in = random_tiles(rows, s.hidden), middle = random_tiles(rows, s.moe_intermediate);
      const cuda::RouteParams route{x->get(), norm->get(), router->get(),       experts.get(), shares.get(), tokens,
                                    s.hidden, s.experts,   s.experts_per_token, 1e-6f,         true};
      const cuda::GroupParams group{experts.get(),
                                    {begin.get(), count.get(), row_tokens.get(), places.get()},
                                    tokens,
                                    s.experts,
                                    s.experts_per_token};
      cuda::route(nullptr, route);
      cuda::group(nullptr, group);
      std::vector<int32_t> counts(static_cast<size_t>(s.experts));
      succeed(cudaMemcpy(counts.data(), count.get(), count.bytes(), cudaMemcpyDefault), "download");
      double met = 0;
      for (int32_t n : counts) met += n > 0;
      const std::string size = tokens_text(tokens), held = name_of(format);
      if (format == bench.options.kernel_formats[0]) {
        bench.measure("route", model.name, "f32", size, {4.0 * s.hidden * (tokens + s.experts), 0},
                      [&](cuda::Stream stream, int) { cuda::route(stream, route); });
        bench.measure("group", model.name, "", size, {12.0 * static_cast<double>(choices), 0},
                      [&](cuda::Stream stream, int) { cuda::group(stream, group); });
        bench.measure("combine", model.name, "", size, {4.0 * s.hidden * tokens * (s.experts_per_token + 2), 0},
                      [&](cuda::Stream stream, int) {
                        cuda::combine(stream, {out.get(), places.get(), shares.get(), x->get(), tokens, s.hidden,
                                               s.experts_per_token});
                      });
      }
      const auto matmul = [&](const char* name, const DeviceMatrix& m, const DeviceArray<const uint8_t*>& list,
                              const uint16_t* activations, cuda::Epilogue epilogue) {
        const double written = epilogue == cuda::Epilogue::silu_mul ? 1.0 * m.rows : 4.0 * m.rows;
        bench.measure(std::string("gemm_grouped ") + name, model.name, held, size,
                      {met * static_cast<double>(bytes_of(m)) + static_cast<double>(choices) * (2.0 * m.cols + written),
                       2.0 * m.rows * m.cols * static_cast<double>(choices)},
                      [&](cuda::Stream stream, int) {
                        const cuda::GroupedGemmParams args{list.get(),  m,         activations,  begin.get(),
                                                           count.get(), s.experts, tokens,       s.experts_per_token,
                                                           epilogue,    out.get(), middle->get()};
                        cuda::gemm_grouped(stream, args);
                        cuda::gemm_grouped_wide(stream, args);
                      });
      };
      matmul("gate_up", gate_up, up_pointers, in->get(), cuda::Epilogue::silu_mul);
      matmul("down", down, down_pointers, middle->get(), cuda::Epilogue::store);
    }
  }
}

}  // namespace gpu_bench
