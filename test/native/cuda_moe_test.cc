// Mixture of experts on the device, under host execution: routing, grouping, products per expert and the sum.
#include "backend/cuda/kernels/moe.h"
#include "backend/cuda/kernels/rowwise.h"
#include "cuda_tensors.h"

using namespace sdar;
using namespace oracle;

namespace {

struct Routed {
  std::vector<int32_t> experts;
  std::vector<float> weights;
  double margin = 1;  ///< least distance of a chosen logit from one that was not
};

/// What ops/moe.h says of one token.
Routed expected(const float* h, const Matrix& router, int top_k, bool renormalise) {
  std::vector<float> logits;
  for (int64_t e = 0; e < router.rows; e++) {
    logits.push_back(static_cast<float>(std::inner_product(h, h + router.cols, router.row(e), 0.0)));
  }
  const std::vector<double> p = softmax(logits);
  std::vector<int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  Routed r;
  if (top_k < router.rows) r.margin = logits[order[top_k - 1]] - logits[order[top_k]];
  r.experts.assign(order.begin(), order.begin() + top_k);
  std::sort(r.experts.begin(), r.experts.end());
  double total = 0;
  for (int32_t e : r.experts) total += p[e];
  for (int32_t e : r.experts) r.weights.push_back(static_cast<float>(renormalise ? p[e] / total : p[e]));
  return r;
}

struct Layer {
  int hidden, inner, experts, top_k;
  bool renormalise;
  WeightFormat format;
  std::vector<float> norm;
  Matrix router;
  std::vector<std::unique_ptr<DeviceWeight>> gate_up, down;
  bool counting = false;  ///< costs and accesses are checked

  Layer(Random& random, WeightFormat f, int h, int i, int e, int k, bool r)
      : hidden(h), inner(i), experts(e), top_k(k), renormalise(r), format(f) {
    norm = random.floats(static_cast<size_t>(h), 0.5, 1.5);
    router = random_matrix(random, e, h, 0.3);
    for (int n = 0; n < e; n++) {
      gate_up.push_back(std::make_unique<DeviceWeight>(
          WeightKind::gate_up, f,
          std::vector<Matrix>{random_matrix(random, i, h, 0.3), random_matrix(random, i, h, 0.3)}));
      down.push_back(
          std::make_unique<DeviceWeight>(WeightKind::linear, f, std::vector<Matrix>{random_matrix(random, h, i, 0.3)}));
    }
  }

  /// x + the experts' sum, by the kernels; `routed` gets their choice.
  Matrix run(const Matrix& x, Routed& routed) const {
    const int tokens = static_cast<int>(x.rows), most = cuda::grouped_rows(tokens, experts, top_k);
    const size_t choices = static_cast<size_t>(tokens) * top_k;
    const Buffer<float> device_x(x.data, "x"), device_norm(norm, "norm"), device_router(router.data, "router"),
        weights(choices, "choice weights"), out(static_cast<size_t>(most) * hidden, "out");
    const Buffer<int32_t> chosen(choices, "experts"), begin(experts, "begin"), count(experts, "count"),
        row_tokens(most, "row tokens"), rows(choices, "rows");
    const auto check = [&](const cuda::Cost& cost) {
      if (!counting) return;
      check_cost(cost);
      CHECK(cuda_host::last_launch().bank_conflicts() == 0);
    };
    const cuda::RouteParams route{.x = device_x.get(),
                                  .norm = device_norm.get(),
                                  .router = device_router.get(),
                                  .experts = chosen.get(),
                                  .weights = weights.get(),
                                  .tokens = tokens,
                                  .hidden = hidden,
                                  .expert_count = experts,
                                  .top_k = top_k,
                                  .eps = 1e-6f,
                                  .renormalise = renormalise};
    cuda::route(nullptr, route);
    check(cuda::route_cost(route));
    CHECK(!counting || cuda_host::last_launch().tensor("router").narrow == 0);
    routed.experts = chosen.values(), routed.weights = weights.values();
    const cuda::GroupParams group{
        chosen.get(), {begin.get(), count.get(), row_tokens.get(), rows.get()}, tokens, experts, top_k};
    cuda::group(nullptr, group);
    check(cuda::group_cost(group));
    const auto input = empty_tiles(most, hidden, "input"), middle = empty_tiles(most, inner, "middle");
    cuda::rms_norm(nullptr, {.x = device_x.get(),
                             .norm = device_norm.get(),
                             .rows = row_tokens.get(),
                             .tiles = input->get(),
                             .tokens = most,
                             .hidden = hidden,
                             .eps = 1e-6f});
    const std::vector<int32_t> counts = count.values();
    const auto multiply = [&](const auto& experts_of, const uint16_t* activations, cuda::Epilogue epilogue) {
      std::vector<const uint8_t*> pointers;
      for (const auto& weight : experts_of) pointers.push_back(weight->view.data);
      const Buffer<const uint8_t*> device_pointers(pointers, "pointers");
      const cuda::GroupedGemmParams args{.weights = device_pointers.get(),
                                         .shape = experts_of[0]->view,
                                         .activations = activations,
                                         .begin = begin.get(),
                                         .count = count.get(),
                                         .expert_count = experts,
                                         .tokens = tokens,
                                         .top_k = top_k,
                                         .epilogue = epilogue,
                                         .out = out.get(),
                                         .tiles = middle->get()};
      const auto check_wide_loads = [&] {
        if (!counting) return;
        for (const auto& tensor : cuda_host::last_launch().tensors)
          CHECK(tensor.narrow == 0 || (tensor.name != "weights" && tensor.name != "input" && tensor.name != "middle"));
      };
      cuda::gemm_grouped(nullptr, args);
      check(cuda::gemm_grouped_cost(args, counts));
      check_wide_loads();
      if (tokens <= cuda::kTileTokens) return;
      cuda::gemm_grouped_wide(nullptr, args);
      check(cuda::gemm_grouped_wide_cost(args, counts));
      check_wide_loads();
    };
    multiply(gate_up, input->get(), cuda::Epilogue::silu_mul);
    multiply(down, middle->get(), cuda::Epilogue::store);
    const cuda::CombineParams combine{out.get(), rows.get(), weights.get(), device_x.get(), tokens, hidden, top_k};
    cuda::combine(nullptr, combine);
    check(cuda::combine_cost(combine));
    return {tokens, hidden, device_x.values()};
  }
};

void compare(const Layer& layer, const Matrix& x) {
  Routed got;
  const Matrix result = layer.run(x, got), h = rms_norm(x, layer.norm, 1e-6);
  const Matrix h16 = rounded(h, WeightFormat::bf16);
  Matrix want = x;
  for (int token = 0; token < x.rows; token++) {
    const Routed r = expected(h.row(token), layer.router, layer.top_k, layer.renormalise);
    if (r.margin < 1e-4) continue;
    for (int k = 0; k < layer.top_k; k++) {
      CHECK(got.experts[token * layer.top_k + k] == r.experts[k]);
      CHECK_NEAR(got.weights[token * layer.top_k + k], r.weights[k], 1e-5);
      const Matrix one{1, layer.hidden, std::vector<float>(h16.row(token), h16.row(token + 1))};
      const Matrix both = product(one, layer.gate_up[r.experts[k]]->values);
      Matrix inner{1, layer.inner, {}};
      for (int j = 0; j < layer.inner; j++) {
        inner.data.push_back(round_to_bf16(static_cast<float>(silu(both.data[j]) * both.data[layer.inner + j])));
      }
      const Matrix y = product(inner, layer.down[r.experts[k]]->values);
      for (int j = 0; j < layer.hidden; j++) want.data[token * layer.hidden + j] += r.weights[k] * y.data[j];
    }
    const size_t begin = static_cast<size_t>(token) * layer.hidden, count = static_cast<size_t>(layer.hidden);
    CHECK(relative_error(std::span(result.data).subspan(begin, count), std::span(want.data).subspan(begin, count)) <
          2e-3);
  }
}

}  // namespace

TEST("moe: few and many tokens per expert, experts without tokens, all formats") {
  cuda_host::each_order([] {
    Random random(1);
    for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
      const Layer layer(random, format, 136, 72, 5, 2, format != WeightFormat::int8);
      compare(layer, random_matrix(random, 7, 136));
      compare(layer, random_matrix(random, 70, 136));
      compare(Layer(random, format, 704, 72, 4, 2, true), random_matrix(random, 7, 704));  // more slabs than stages
    }
    compare(Layer(random, WeightFormat::bf16, 128, 40, 40, 3, true), random_matrix(random, 9, 128));
    CHECK(claimed("moe.cu", "combine"));
    compare(Layer(random, WeightFormat::bf16, 128, 40, 3, 3, false), random_matrix(random, 2, 128));
  });
}

TEST("moe: equal logits go to the lower expert; a NaN in a token spoils that token alone") {
  Random random(2);
  Layer layer(random, WeightFormat::bf16, 128, 40, 70, 4, true);
  std::fill(layer.router.data.begin(), layer.router.data.end(), 0.0f);
  Matrix x = random_matrix(random, 12, 128);
  Routed got;
  const Matrix clean = layer.run(x, got);
  for (int i = 0; i < 12 * 4; i++) CHECK(got.experts[i] == i % 4 && std::abs(got.weights[i] - 0.25f) < 1e-6f);
  x.data[5 * 128 + 3] = kNan;
  const Matrix spoilt = layer.run(x, got);
  for (int i = 0; i < 12 * 128; i++) {
    CHECK(i / 128 == 5 ? std::isnan(spoilt.data[i]) : spoilt.data[i] == clean.data[i]);
  }
}

TEST("moe: a token's bits are the same alone and among others") {
  Random random(3);
  const Layer layer(random, WeightFormat::int8, 128, 72, 5, 2, true);
  const Matrix x = random_matrix(random, 70, 128);
  Routed routed;
  const Matrix all = layer.run(x, routed);
  for (int token : {0, 33, 69}) {
    const Matrix one = layer.run({1, 128, std::vector<float>(x.row(token), x.row(token + 1))}, routed);
    CHECK(std::equal(one.data.begin(), one.data.end(), all.row(token)));
  }
}

TEST("moe: bytes and mma as cost.h tells: only the weights of experts that some token takes are read") {
  Random random(4);
  Routed routed;
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int4}) {
    Layer even(random, format, 256, 128, 16, 4, true), odd(random, format, 136, 40, 40, 3, true);
    even.counting = odd.counting = true;
    even.run(random_matrix(random, 8, 256), routed);
    even.run(random_matrix(random, 64, 256), routed);
    odd.run(random_matrix(random, 1, 136), routed);
    odd.run(random_matrix(random, 11, 136), routed);
  }
}

TEST("moe: the weights of an expert on which tokens crowd are read once, among others of few tokens") {
  Random random(5);
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    Layer layer(random, format, 128, 72, 40, 2, true);
    // Each token takes expert 7 and one of the others.
    std::fill_n(&layer.router.data[7 * 128], 128, 0.0f);
    layer.router.data[7 * 128] = 100;
    Matrix x = random_matrix(random, 60, 128);
    for (int token = 0; token < 60; token++) x.data[token * 128] = 1;
    layer.counting = true;
    compare(layer, x);
    Routed routed;
    layer.run(x, routed);
    CHECK(std::count(routed.experts.begin(), routed.experts.end(), 7) == 60);
    const cuda::GroupedGemmParams args{.shape = layer.gate_up[0]->view,
                                       .expert_count = 40,
                                       .tokens = 60,
                                       .top_k = 2,
                                       .epilogue = cuda::Epilogue::store};
    std::vector<int32_t> counts(40, 0);
    counts[7] = 60;
    const cuda::Cost crowd = cuda::gemm_grouped_wide_cost(args, counts);
    counts[7] = 9;
    CHECK(crowd.mma == cuda::gemm_grouped_wide_cost(args, counts).mma);  // the same blocks for 9 rows as for 60
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
