// The portable backend is the oracle of the others: in int8 and int4 it holds the same integers and rounds activations
// to the same integers, so that kernels differ from it by the order of f32 sums alone.
#include <string>
#include <vector>

#include "check.h"
#include "cpu_kernels.h"
#include "golden_cases.h"
#include "harness.h"

using namespace sdar;
using namespace oracle;

namespace {

constexpr double kTolerance = 3e-6;  // f32 sums in another order

struct Shape {
  int rows, cols;
};
constexpr Shape kShapes[] = {{1, 1}, {33, 24}, {64, 96}, {30, 160}, {96, 128}, {7, 129}, {130, 257}, {66, 640}};

std::unique_ptr<HostBackend> portable(int hidden) { return fast_backend("portable", 1, hidden); }

/// Small integers: their squares add up without rounding, so that both backends normalise to the same bits.
Matrix exact_rows(Random& random, int64_t rows, int64_t cols) {
  Matrix x{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  for (float& v : x.data) v = static_cast<float>(random.below(61) - 30);
  return x;
}

void compare(const std::vector<float>& fast, const std::vector<float>& plain, const std::string& what) {
  const double error = relative_error(fast, plain);
  if (!(error <= kTolerance)) check::fail(__FILE__, __LINE__, what + ": error " + std::to_string(error));
}

}  // namespace

TEST("int8 and int4: linear and gate_up in every instruction set against the portable backend") {
  Random random(1);
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
      for (const Shape& s : kShapes) {
        const auto fast = fast_backend(isa, 2, s.cols), plain = portable(s.cols);
        const Matrix a = random_matrix(random, s.rows, s.cols), b = random_matrix(random, s.rows, s.cols, 0.3);
        const std::vector<float> norm = random.floats(s.cols, 0.5, 2);
        for (int m : {1, 3, 8, 21}) {
          const std::string where = isa + " " + name_of(format) + " [" + std::to_string(s.rows) + ", " +
                                    std::to_string(s.cols) + "] m " + std::to_string(m);
          const Matrix exact = exact_rows(random, m, s.cols), any = random_matrix(random, m, s.cols, 3);
          std::vector<float> normed[2], gated[2], added[2];
          for (int i = 0; i < 2; i++) {
            HostBackend& backend = i ? *plain : *fast;
            const Held norms = hold_vector(backend, norm);
            const Held linear = hold(backend, WeightKind::linear, format, {a, b});
            const Held gate_up = hold(backend, WeightKind::gate_up, format, {a, b});
            normed[i].assign(static_cast<size_t>(m) * 2 * s.rows, kNan);
            gated[i].assign(static_cast<size_t>(m) * s.rows, kNan);
            added[i].assign(static_cast<size_t>(m) * 2 * s.rows, 0.25f);
            backend.norm_linear(
                {.x = exact.data.data(), .m = m, .norm = norms, .weight = linear, .out = normed[i].data()});
            backend.norm_linear(
                {.x = exact.data.data(), .m = m, .norm = norms, .weight = gate_up, .out = gated[i].data()});
            backend.linear_add({.in = any.data.data(), .m = m, .weight = linear, .x = added[i].data()});
          }
          compare(normed[0], normed[1], where + " norm_linear");
          compare(gated[0], gated[1], where + " gate_up");
          compare(added[0], added[1], where + " linear_add");
        }
      }
    }
  }
}

TEST("int8 and int4: rows of tables are the same numbers, and so are their logits up to the order of sums") {
  Random random(2);
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
      for (const Shape& s : {Shape{35, 24}, {67, 136}, {300, 257}}) {
        const auto fast = fast_backend(isa, 2, s.cols), plain = portable(s.cols);
        const Matrix table = random_matrix(random, s.rows, s.cols), x = exact_rows(random, 3, s.cols);
        const std::vector<float> norm = random.floats(s.cols, 0.5, 2);
        const std::vector<int32_t> ids{0, s.rows - 1, s.rows / 2};
        const std::vector<SampledRow> sampled{{.row = 2}, {.row = 0}};
        std::vector<float> rows[2], logits[2];
        for (int i = 0; i < 2; i++) {
          HostBackend& backend = i ? *plain : *fast;
          const Held norms = hold_vector(backend, norm);
          const Held held = hold(backend, WeightKind::table, format, {table});
          std::vector<SampledToken> results(sampled.size());
          rows[i].assign(ids.size() * s.cols, kNan);
          logits[i].assign(sampled.size() * s.rows, kNan);
          embed(backend, held, ids, rows[i].data());
          lm_head(backend, {.x = x.data.data(), .norm = norms, .weight = held}, sampled, results, logits[i].data());
        }
        CHECK(rows[0] == rows[1]);
        compare(logits[0], logits[1], isa + " lm_head");
      }
    }
  }
}

/// Statistics of a norm are sums too: an activation between two integers falls either way at times, and a token changes
/// where two were equally likely. Another format of weights would change nearly every request. Pages are f32: on others
/// sets with bf16 dot products round queries to bf16.
TEST("int8 and int4: whole generations have the portable backend's tokens, but for near ties") {
  for (const char* name : {"tiny-dense", "tiny-moe", "tiny-tied"}) {
    const auto cases = golden::cases(name);
    std::vector<Request> requests;
    for (const auto& c : cases) requests.push_back(golden::request_of(c));
    for (WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
      const auto run = [&](const std::string& isa) {
        harness::Runner runner({.path = std::string("test/golden/") + name,
                                .weights = format,
                                .threads = 2,
                                .isa = isa,
                                .kv_format = KvFormat::f32});
        return runner.run(requests);
      };
      const auto plain = run("portable");
      for (const std::string& isa : harness::instruction_sets()) {
        if (isa == "portable") continue;
        const auto fast = run(isa);
        const auto same = [](const TokenRecord& a, const TokenRecord& b) { return a.id == b.id && a.step == b.step; };
        int differing = 0;
        for (size_t r = 0; r < cases.size(); r++) {
          const auto &a = fast[r].tokens, &b = plain[r].tokens;
          differing += !std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
        }
        std::printf("# %s %s in %s: %d of %zu requests differ\n", name, name_of(format), isa.c_str(), differing,
                    cases.size());
        CHECK(differing * 10 <= static_cast<int>(cases.size()));
      }
    }
  }
}

int main(int c, char** v) { return check::run(c, v); }
