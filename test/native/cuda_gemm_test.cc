// GEMMs of the CUDA backend under the SIMT executor: against plain loops in double, the same bits at every number of
// tokens and in all kernels, and the costs of cost.h.
#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/gemm.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

constexpr WeightFormat kHeld[] = {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};

enum class Kernel { small, large, warpgroup, wide_warpgroup };

Matrix first_rows(const Matrix& m, int rows) {
  return {rows, m.cols, std::vector<float>(m.data.begin(), m.data.begin() + rows * m.cols)};
}

Matrix first_columns(const Matrix& m, int cols) {
  Matrix some{m.rows, cols, {}};
  for (int64_t i = 0; i < m.rows; i++) some.data.insert(some.data.end(), m.row(i), m.row(i) + cols);
  return some;
}

/// The kernel's result for `input` (and `start`, what out holds before).
Matrix multiply(Kernel kernel, const DeviceWeight& weight, const Matrix& input, cuda::Epilogue epilogue,
                const Matrix* start = nullptr) {
  const int tokens = static_cast<int>(input.rows), outputs = weight.view.outputs();
  const auto activations = put_tiles(input, "activations");
  const Buffer<float> out(static_cast<size_t>(tokens) * weight.view.rows, "out");
  if (start)
    out.size() == start->data.size() ? cuda_host::upload(out.get(), start->data.data(), out.size() * 4) : void();
  const auto tiles = empty_tiles(tokens, outputs, "tiles");
  cuda::GemmParams args{.weight = weight.view,
                        .activations = activations->get(),
                        .tokens = tokens,
                        .epilogue = epilogue,
                        .out = out.get(),
                        .tiles = tiles->get(),
                        .pdl = true};
  if (kernel == Kernel::large) {
    cuda::gemm_large(nullptr, args);
  } else if (kernel != Kernel::small) {
    args.token_tiles = kernel == Kernel::wide_warpgroup && cuda::warpgroup_takes(weight.view, 32) ? 32 : 16;
    cuda_host::set_shared_limit(227 * 1024);
    cuda::gemm_warpgroup(nullptr, args);
    cuda_host::set_shared_limit(99 * 1024);
  } else {
    const Buffer<float> partials(cuda::gemm_partial_floats(weight.view, tokens) + 1, "partials");
    const Buffer<uint32_t> counters(std::vector<uint32_t>(cuda::gemm_counters(weight.view, tokens) + 1), "counters");
    args.partials = partials.get();
    args.counters = counters.get();
    cuda::gemm(nullptr, args);
    for (uint32_t counter : counters.values()) CHECK(counter == 0);
  }
  if (epilogue == cuda::Epilogue::silu_mul) return get_tiles(*tiles, tokens, outputs);
  return {tokens, weight.view.rows, out.values()};
}

Matrix sum(const Matrix& a, const Matrix& b) {
  Matrix c = a;
  for (size_t i = 0; i < c.data.size(); i++) c.data[i] += b.data[i];
  return c;
}

Matrix silu_product(const Matrix& both) {
  const int64_t n = both.cols / 2;
  Matrix m{both.rows, n, {}};
  for (int64_t i = 0; i < m.rows; i++) {
    for (int64_t j = 0; j < n; j++) {
      m.data.push_back(static_cast<float>(silu(both.row(i)[j]) * both.row(i)[n + j]));
    }
  }
  return m;
}

}  // namespace

TEST("gemm: store, add and silu·mul of odd shapes against plain loops") {
  cuda_host::each_order([] {
    Random random(1);
    for (WeightFormat format : kHeld) {
      for (int tokens : {1, 8, 13, 24, 30, 64, 70}) {
        const int rows = 90 + random.below(60), cols = 100 + random.below(200);
        const Matrix input = rounded(random_matrix(random, tokens, cols), WeightFormat::bf16);
        const DeviceWeight weight(WeightKind::linear, format, {random_matrix(random, rows, cols)});
        const Matrix want = product(input, weight.values), start = random_matrix(random, tokens, rows, 5);
        CHECK(relative_error(multiply(Kernel::small, weight, input, cuda::Epilogue::store).data, want.data) < 1e-5);
        CHECK(relative_error(multiply(Kernel::small, weight, input, cuda::Epilogue::add, &start).data,
                             sum(start, want).data) < 1e-5);
        const Matrix gate = random_matrix(random, rows / 2, cols), up = random_matrix(random, rows / 2, cols);
        const DeviceWeight both(WeightKind::gate_up, format, {gate, up});
        CHECK(bf16_distance(multiply(Kernel::small, both, input, cuda::Epilogue::silu_mul).data,
                            silu_product(product(input, both.values)).data) <= 1);
      }
    }
  });
}

TEST("gemm: partial sums of split-K are added in ascending order by the block that finishes last") {
  cuda_host::each_order([] {
    Random random(2);
    for (WeightFormat format : kHeld) {
      for (int tokens : {3, 40}) {
        const DeviceWeight weight(WeightKind::linear, format, {random_matrix(random, 72, 1700)});
        CHECK(weight.view.splits() == 3);
        const Matrix input = rounded(random_matrix(random, tokens, 1700), WeightFormat::bf16);
        const Matrix start = random_matrix(random, tokens, 72, 5), want = product(input, weight.values);
        CHECK(relative_error(multiply(Kernel::small, weight, input, cuda::Epilogue::store).data, want.data) < 1e-5);
        CHECK(relative_error(multiply(Kernel::small, weight, input, cuda::Epilogue::add, &start).data,
                             sum(start, want).data) < 1e-5);
      }
    }
  });
}

TEST("gemm: a token's bits are the same alone, among others, and in the kernel for many tokens") {
  Random random(3);
  for (WeightFormat format : kHeld) {
    const int cols = 1300, tokens = 152;
    const DeviceWeight weight(WeightKind::linear, format, {random_matrix(random, 140, cols)});
    const DeviceWeight both(WeightKind::gate_up, format,
                            {random_matrix(random, 70, cols), random_matrix(random, 70, cols)});
    CHECK(weight.view.splits() == 2);
    const Matrix input = rounded(random_matrix(random, tokens, cols), WeightFormat::bf16);
    const Matrix start = random_matrix(random, tokens, 140);
    for (cuda::Epilogue epilogue : {cuda::Epilogue::store, cuda::Epilogue::add, cuda::Epilogue::silu_mul}) {
      const DeviceWeight& w = epilogue == cuda::Epilogue::silu_mul ? both : weight;
      const Matrix all = multiply(Kernel::large, w, input, epilogue, &start);
      for (int few : {1, 9, 20, 50, 129}) {
        const Matrix some = first_rows(start, few);
        const auto same = [&](const Matrix& m) { return std::equal(m.data.begin(), m.data.end(), all.data.begin()); };
        CHECK(same(multiply(Kernel::small, w, first_rows(input, few), epilogue, &some)));
        CHECK(few < 100 || same(multiply(Kernel::large, w, first_rows(input, few), epilogue, &some)));
        if (few < 50 || !cuda_host::has_warpgroups()) continue;
        CHECK(same(multiply(Kernel::warpgroup, w, first_rows(input, few), epilogue, &some)));
        CHECK(same(multiply(Kernel::wide_warpgroup, w, first_rows(input, few), epilogue, &some)));
      }
    }
  }
}

TEST("gemm_large: odd shapes against plain loops in three orders") {
  cuda_host::each_order([] {
    Random random(4);
    for (WeightFormat format : kHeld) {
      const Matrix input = rounded(random_matrix(random, 133, 270), WeightFormat::bf16);
      const DeviceWeight weight(WeightKind::linear, format, {random_matrix(random, 150, 270)});
      const Matrix want = product(input, weight.values), start = random_matrix(random, 133, 150, 5);
      CHECK(relative_error(multiply(Kernel::large, weight, input, cuda::Epilogue::add, &start).data,
                           sum(start, want).data) < 1e-5);
    }
  });
}

TEST("gemm_warpgroup: odd shapes against plain loops in three orders") {
  if (!cuda_host::has_warpgroups()) throw check::Skip{"this device has no warpgroup MMA"};
  cuda_host::each_order([] {
    Random random(7);
    for (WeightFormat format : kHeld) {
      for (Kernel kernel : {Kernel::warpgroup, Kernel::wide_warpgroup}) {
        const int tokens = kernel == Kernel::warpgroup ? 133 : 270;
        const Matrix input = rounded(random_matrix(random, tokens, 1300), WeightFormat::bf16);
        const DeviceWeight narrow(WeightKind::linear, format, {random_matrix(random, 150, 270)});
        const DeviceWeight parted(WeightKind::linear, format, {random_matrix(random, 20, 1300)});
        const DeviceWeight both(WeightKind::gate_up, format,
                                {random_matrix(random, 70, 270), random_matrix(random, 70, 270)});
        CHECK(parted.view.splits() == 2);
        for (const DeviceWeight* weight : {&narrow, &parted}) {
          const Matrix in = first_columns(input, weight->view.cols), want = product(in, weight->values);
          const Matrix start = random_matrix(random, tokens, weight->view.rows, 5);
          CHECK(relative_error(multiply(kernel, *weight, in, cuda::Epilogue::store).data, want.data) < 1e-5);
          CHECK(relative_error(multiply(kernel, *weight, in, cuda::Epilogue::add, &start).data, sum(start, want).data) <
                1e-5);
        }
        const Matrix in = first_columns(input, 270);
        CHECK(bf16_distance(multiply(kernel, both, in, cuda::Epilogue::silu_mul).data,
                            silu_product(product(in, both.values)).data) <= 1);
      }
    }
  });
}

TEST("gemm_warpgroup: the descriptor of tokens, bit by bit") {
  CHECK(cuda::token_descriptor(0x1200, 1024) == (uint64_t{2} << 62 | uint64_t{64} << 32 | uint64_t{1} << 16 | 0x120));
  CHECK(cuda::token_descriptor(0x30020, 2048) ==
        (uint64_t{2} << 62 | uint64_t{128} << 32 | uint64_t{1} << 16 | 0x3002));
}

TEST("gemm: a NaN in a group of weights reaches the rows that hold it and no other") {
  Random random(5);
  for (WeightFormat format : kHeld) {
    Matrix m = random_matrix(random, 32, 256);
    m.data[5 * 256 + 17] = kNan;
    const DeviceWeight weight(WeightKind::linear, format, {m});
    const Matrix got = multiply(Kernel::small, weight, random_matrix(random, 4, 256), cuda::Epilogue::store);
    for (int i = 0; i < 4 * 32; i++) CHECK(std::isnan(got.data[i]) == (i % 32 == 5));
  }
}

TEST("gemm: bytes and mma as cost.h tells, loads of 16 bytes, no bank conflicts") {
  Random random(6);
  for (WeightFormat format : kHeld) {
    const DeviceWeight even(WeightKind::linear, format, {random_matrix(random, 128, 512)});
    const DeviceWeight odd(WeightKind::linear, format, {random_matrix(random, 150, 1100)});
    const DeviceWeight both(WeightKind::gate_up, format,
                            {random_matrix(random, 70, 300), random_matrix(random, 70, 300)});
    CHECK(odd.view.splits() == 2);
    const auto check = [&](const DeviceWeight& weight, int tokens, cuda::Epilogue epilogue) {
      const Matrix start = random_matrix(random, tokens, weight.view.rows);
      const Matrix input = random_matrix(random, tokens, weight.view.cols);
      const cuda::GemmParams args{.weight = weight.view, .tokens = tokens, .epilogue = epilogue};
      multiply(tokens > 100 ? Kernel::large : Kernel::small, weight, input, epilogue, &start);
      check_cost(tokens > 100 ? cuda::gemm_large_cost(args) : cuda::gemm_cost(args));
      const auto& report = cuda_host::last_launch();
      CHECK(report.tensor("weights").narrow == 0 && report.tensor("activations").narrow == 0);
      CHECK(report.bank_conflicts() == 0);
    };
    for (int tokens : {8, 16, 32, 64, 128}) {
      check(even, tokens, cuda::Epilogue::store);
      const std::string tile =
          std::string("<") + name_of(format) + (tokens > 64 ? ">" : ", " + std::to_string(tokens / 8) + ">");
      CHECK(tokens > 64 ? claimed("gemm_large.cu", "gemm_large" + tile) : claimed("gemm.cu", "gemm" + tile));
    }
    for (Kernel kernel : {Kernel::warpgroup, Kernel::wide_warpgroup}) {
      const auto tiles = [&](const DeviceWeight& weight) {
        return kernel == Kernel::wide_warpgroup && cuda::warpgroup_takes(weight.view, 32) ? 32 : 16;
      };
      const auto costs = [&](const DeviceWeight& weight, int tokens, cuda::Epilogue epilogue) {
        const Matrix start = random_matrix(random, tokens, weight.view.rows);
        const Matrix input = random_matrix(random, tokens, weight.view.cols);
        const cuda::GemmParams args{
            .weight = weight.view, .tokens = tokens, .epilogue = epilogue, .token_tiles = tiles(weight)};
        multiply(kernel, weight, input, epilogue, &start);
        check_cost(cuda::gemm_warpgroup_cost(args));
        const auto& report = cuda_host::last_launch();
        CHECK(report.tensor("weights").narrow == 0 && report.tensor("activations").narrow == 0);
        CHECK(report.bank_conflicts() == 0);
        CHECK(claimed("gemm_warpgroup.cu", std::string("gemm_warpgroup<") + name_of(format) + ", " +
                                               std::to_string(tiles(weight)) +
                                               (weight.view.splits() > 1 ? ", 1>" : ", 0>")));
      };
      costs(even, 256, cuda::Epilogue::store);
      costs(even, 250, cuda::Epilogue::add);
      costs(odd, 133, cuda::Epilogue::store);
      costs(odd, 133, cuda::Epilogue::add);
      costs(both, 133, cuda::Epilogue::silu_mul);
    }
    for (int tokens : {3, 70, 133}) {
      check(odd, tokens, cuda::Epilogue::store);
      check(odd, tokens, cuda::Epilogue::add);
      check(both, tokens, cuda::Epilogue::silu_mul);
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
