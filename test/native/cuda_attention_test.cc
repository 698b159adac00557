// Paged attention of the CUDA backend under host execution: against plain loops, the same bits however a step shares
// its rows out, and the arithmetic of the kernel's comment.
#include "cuda_steps.h"

using namespace sdar;
using namespace oracle;

namespace {

ModelShape shape_of(int head_dim, int heads, int kv_heads) {
  ModelShape s;
  s.layers = 2, s.heads = heads, s.kv_heads = kv_heads, s.head_dim = head_dim;
  return s;
}

/// Random keys, values and queries of whole sequences.
struct Case {
  ModelShape shape;
  int block;
  PagedSequences pages;
  std::vector<Matrix> q;                          ///< per sequence [positions, heads · head_dim], bf16
  std::vector<std::vector<Matrix>> keys, values;  ///< per sequence and KV head [positions, head_dim], bf16

  Case(Random& random, const ModelShape& s, int b, const std::vector<int>& lengths)
      : shape(s), block(b), pages(random, s, b, lengths) {
    for (size_t i = 0; i < lengths.size(); i++) {
      q.push_back(rounded(random_matrix(random, lengths[i], s.heads * s.head_dim, 2), WeightFormat::bf16));
      keys.emplace_back(), values.emplace_back();
      for (int h = 0; h < s.kv_heads; h++) {
        keys[i].push_back(rounded(random_matrix(random, lengths[i], s.head_dim, 2), WeightFormat::bf16));
        values[i].push_back(rounded(random_matrix(random, lengths[i], s.head_dim), WeightFormat::bf16));
      }
    }
  }
  /// Writes the keys and values of positions before `end`.
  void fill(int sequence, int end) const {
    for (int h = 0; h < shape.kv_heads; h++) {
      for (int p = 0; p < end; p++) {
        for (bool value : {false, true}) {
          const float* row = (value ? values : keys)[sequence][h].row(p);
          pages.put(sequence, 1, value, h, p, std::vector<float>(row, row + shape.head_dim));
        }
      }
    }
  }
  Matrix run(const std::vector<Run>& runs, bool counting = false) const {
    const DeviceStep step(pages, runs);
    Matrix all{0, shape.heads * shape.head_dim, {}};
    for (const Run& r : runs) {
      all.data.insert(all.data.end(), q[r.sequence].row(r.position), q[r.sequence].row(r.position + r.rows));
      all.rows += r.rows;
    }
    return attend(pages, step, all, shape.heads, 1, counting);
  }
  Matrix want(const Run& r) const {
    const int dim = shape.head_dim, group = shape.heads / shape.kv_heads;
    Matrix out{r.rows, shape.heads * dim, {}};
    for (int p = r.position; p < r.position + r.rows; p++) {
      for (int h = 0; h < shape.heads; h++) {
        const Matrix &k = keys[r.sequence][h / group], &v = values[r.sequence][h / group];
        std::vector<float> scores;
        for (int j = 0; j < (p / block + 1) * block; j++) {
          scores.push_back(static_cast<float>(
              std::inner_product(k.row(j), k.row(j) + dim, q[r.sequence].row(p) + h * dim, 0.0) / std::sqrt(dim)));
        }
        const std::vector<double> weight = softmax(scores);
        for (int d = 0; d < dim; d++) {
          double sum = 0;
          for (size_t j = 0; j < weight.size(); j++) sum += weight[j] * v.row(static_cast<int64_t>(j))[d];
          out.data.push_back(static_cast<float>(sum));
        }
      }
    }
    return out;
  }
};

void compare(const Case& c, const std::vector<Run>& runs) {
  const Matrix got = c.run(runs);
  int row = 0;
  for (const Run& r : runs) {
    const size_t begin = static_cast<size_t>(row) * got.cols, count = static_cast<size_t>(r.rows) * got.cols;
    CHECK(bf16_distance(std::span(got.data).subspan(begin, count), c.want(r).data, 0.25) <= 2);
    row += r.rows;
  }
}

}  // namespace

TEST("attention: blocks at odd places, pages that blocks do not fill, several sequences at once") {
  cuda_host::each_order([] {
    Random random(1);
    {
      const Case c(random, shape_of(128, 8, 2), 4, {72, 12, 4});
      c.fill(0, 72), c.fill(1, 12), c.fill(2, 4);
      compare(c, {{0, 68, 4}, {1, 4, 8}, {2, 0, 4}});
    }
    {
      const Case c(random, shape_of(64, 3, 1), 6, {132, 6});  // pages of 60
      c.fill(0, 132), c.fill(1, 6);
      compare(c, {{1, 0, 6}, {0, 120, 12}});
    }
    {
      const Case c(random, shape_of(64, 4, 4), 1, {65});
      c.fill(0, 65);
      compare(c, {{0, 64, 1}});
    }
  });
}

TEST("attention: contexts of several chunks are merged in ascending order") {
  cuda_host::each_order([] {
    Random random(2);
    const Case c(random, shape_of(64, 2, 1), 8, {600, 256, 264});
    c.fill(0, 600), c.fill(1, 256), c.fill(2, 264);
    compare(c, {{0, 592, 8}, {1, 248, 8}, {2, 248, 16}});       // the last: one row sees one chunk, another two
    const Case odd(random, shape_of(64, 3, 1), 4, {260, 260});  // 12 query rows of 16
    odd.fill(0, 260), odd.fill(1, 260);
    compare(odd, {{0, 256, 4}, {1, 256, 4}});
  });
}

TEST("attention: many rows of a segment share keys and values") {
  cuda_host::each_order([] {
    Random random(3);
    const Case c(random, shape_of(128, 4, 1), 4, {96, 20});
    c.fill(0, 96), c.fill(1, 20);
    compare(c, {{0, 40, 56}, {1, 12, 8}});
  });
}

TEST("attention: a row's bits are the same in any step and any kernel") {
  Random random(4);
  for (int block : {4, 6}) {
    const int length = block == 4 ? 536 : 540;
    const Case c(random, shape_of(64, 4, 2), block, {length, 40 * block});
    c.fill(0, length), c.fill(1, 40 * block);
    const Matrix all = c.run({{0, 0, length}});
    const auto same = [&](const Matrix& m, int row, int position, int rows) {
      return std::equal(m.row(row), m.row(row + rows), all.row(position));
    };
    for (int position : {0, 5 * block, 40 * block, length - block})
      CHECK(same(c.run({{0, position, block}}), 0, position, block));
    const Matrix mixed = c.run({{1, 8 * block, block}, {0, 20 * block, 2 * block}, {0, 30 * block, 30 * block}});
    CHECK(same(mixed, block, 20 * block, 2 * block));
    CHECK(same(mixed, 3 * block, 30 * block, 30 * block));
  }
}

TEST("attention: what lies behind the segment, NaN or another's keys, is not seen") {
  Random random(5);
  const Case c(random, shape_of(64, 2, 1), 4, {64});
  c.fill(0, 12);
  compare(c, {{0, 8, 4}});
  const Matrix before = c.run({{0, 8, 4}});
  c.fill(0, 64);
  CHECK(c.run({{0, 8, 4}}).data == before.data);
}

TEST("attention: bytes and mma as cost.h tells, loads of 16 bytes, no bank conflicts") {
  Random random(6);
  const Case even(random, shape_of(128, 8, 2), 4, {192, 512});
  even.fill(0, 192), even.fill(1, 512);
  even.run({{0, 188, 4}}, true);
  even.run({{0, 128, 64}}, true);
  even.run({{0, 188, 4}, {1, 508, 4}}, true);
  const Case odd(random, shape_of(64, 6, 2), 6, {132, 540, 66});  // pages of 60
  odd.fill(0, 132), odd.fill(1, 540), odd.fill(2, 66);
  odd.run({{0, 60, 72}, {1, 528, 12}, {2, 60, 6}}, true);
}

TEST("attention: slots behind the segment's end are not read") {
  Random random(7);
  const Case c(random, shape_of(64, 2, 1), 4, {64});
  c.fill(0, 64);
  c.run({{0, 16, 4}});
  CHECK(cuda_host::last_launch().tensor("pages").loaded == 20 * 2 * 64 * 2);
}

TEST("attention plan: every query row once, chunks in order") {
  std::vector<cuda::DeviceSegment> segments{{0, 4, 508, 4, 0}, {4, 64, 0, 4, 0}, {68, 6, 300, 6, 0}};
  const cuda::AttentionPlan plan = cuda::plan_attention(segments, 4);
  CHECK(plan.wide.size() == 4 && plan.wide[3].first == 192 && plan.wide[3].partial < 0);
  CHECK(plan.narrow.size() == 2 + 2 * 2 && plan.partials == 6 && plan.merges.size() == 3);
  CHECK(plan.narrow[1].chunk == 1 && plan.narrow[1].chunk_end == 2 && plan.narrow[1].partial == 1);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
