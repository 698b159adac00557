// Rows of a verification in the CPU's attention: against plain double loops over blocks of one position, and bit for bit
// against themselves.
#include <algorithm>

#include "check.h"
#include "cpu_attention.h"

using namespace sdar;
using namespace attention;

/// Rows of a verification of `rows` positions after `prefix` ones, the masks from offset `first` on.
std::vector<float> verify(Device& d, Sequence& s, const std::vector<float>& rows, int32_t prefix, int32_t tokens,
                          int32_t masks, bool among_others) {
  std::vector<float> ignored, qkv(rows);
  if (s.pages.empty() && prefix > 0) d.step({{&s, 0, prefix, &ignored}});
  while (static_cast<int32_t>(s.pages.size()) * tokens_per_page(s.block) < prefix + s.block) {
    s.pages.push_back(d.free.back());
    d.free.pop_back();
  }
  std::vector<Segment> segments;
  const int32_t other_page = d.free.front();
  int32_t before = 0;
  if (among_others) {
    before = s.block;
    qkv.insert(qkv.begin(), rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(before) * s.cols());
    segments.push_back({0, before, 0, s.block, &other_page});
  }
  segments.push_back({before, tokens + masks, prefix, s.block, s.pages.data(), masks});
  std::vector<float> out(static_cast<size_t>(before + tokens + masks) * s.out_cols(), kNaN);
  d.attention.begin_step(segments, before + tokens + masks);
  d.attention.run({1, qkv.data(), out.data(), nullptr, nullptr}, d.q_norm.data(), d.k_norm.data());
  out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(before) * s.out_cols());
  return out;
}

TEST("a verification's rows are those of blocks of one position, whatever runs beside them") {
  // Prefixes end within a page, with one, with a chunk, and after several chunks, which threads share.
  const struct { int32_t block, prefix; } cases[] = {{8, 0}, {8, 40}, {4, 64}, {16, 512}, {64, 64}, {3, 63}, {16, 960}};
  for (const std::string& isa : kernel_sets()) {
    for (const auto& c : cases) {
      for (const KvFormat format : kFormats) {
        const int32_t group = c.block == 4 ? 7 : 2, dim = c.block == 3 ? 20 : 32;
        const ModelShape shape = shape_of(1 + c.block % 3, group, dim);
        const int32_t tokens = c.block - 1, masks = c.block == 8 ? 5 : c.block, first = tokens + 1 - masks;
        Sequence s = sequence(shape, c.block, c.prefix / c.block + 2, 17);
        const std::ptrdiff_t cols = s.cols(), out_cols = s.out_cols();
        // Of one block more than is verified: other masks than the sequence's own rows.
        const auto from = s.qkv.begin() + c.prefix * cols;
        std::vector<float> rows(from, from + tokens * cols);
        for (int32_t i = 0; i < masks; i++) {
          const auto mask = s.qkv.begin() + (c.prefix + c.block + first + i) * cols;
          rows.insert(rows.end(), mask, mask + cols);
        }
        std::vector<float> expected;
        for (int threads = 1; threads <= 3; threads++) {
          Device device(shape, format, isa, threads);
          for (const bool among_others : {false, true}) {
            const std::vector<float> out = verify(device, s, rows, c.prefix, tokens, masks, among_others);
            if (expected.empty()) expected = out;
            CHECK(same_bits(out, expected));
          }
          s.pages.clear();
        }
        Device device(shape, format, isa, 1);
        Sequence single = s;
        single.block = 1;
        for (int32_t i = 0; i < tokens + masks; i++) {
          if (c.prefix > 64 && i != 1 && i + 1 != tokens && i != tokens) continue;  // the oracle takes long
          const int32_t p = c.prefix + (i < tokens ? i : first + i - tokens);
          single.qkv = s.qkv;
          std::copy_n(rows.begin() + i * cols, cols, single.qkv.begin() + p * cols);
          const std::vector<float> got(expected.begin() + i * out_cols, expected.begin() + (i + 1) * out_cols);
          check_rows(s, got, oracle(single, format, p, p + 1, device), 0, tolerance(format, isa),
                     describe(s, format, isa) + " row " + std::to_string(i));
        }
      }
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
