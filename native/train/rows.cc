#include "train/rows.h"

#include <algorithm>
#include <string>

#include "util/error.h"

namespace sdar::train {
namespace {

void check_block(int32_t block) {
  if (block < 1) throw Error(code::kInvalidOption, "block is " + std::to_string(block) + "; allowed: 1 or more");
}

/// Adds rows at positions from `first` on; the first of the new rows.
int32_t append(TrainingRows& rows, std::span<const int32_t> ids, int32_t first = 0) {
  const auto base = static_cast<int32_t>(rows.ids.size());
  rows.ids.insert(rows.ids.end(), ids.begin(), ids.end());
  for (int32_t i = 0; i < static_cast<int32_t>(ids.size()); i++) rows.positions.push_back(first + i);
  rows.targets.resize(rows.ids.size());
  rows.weights.resize(rows.ids.size());
  return base;
}

/// The end of the block that position i is in, of a sample of `length` positions.
int32_t block_end(int32_t i, int32_t block, int32_t length) { return std::min((i / block + 1) * block, length); }

}  // namespace

void add_token_causal(TrainingRows& rows, std::span<const int32_t> ids) { add_block_causal(rows, ids, 1); }

void add_block_causal(TrainingRows& rows, std::span<const int32_t> ids, int32_t block) {
  check_block(block);
  const auto length = static_cast<int32_t>(ids.size());
  const int32_t base = append(rows, ids);
  for (int32_t i = 0; i < length; i++) rows.sight.push_back({{{base, base + block_end(i, block, length)}, {}}});
  if (length > 0) rows.samples.push_back({base, base + length});
}

void add_noisy_and_clean(TrainingRows& rows, std::span<const int32_t> noisy, std::span<const int32_t> clean,
                         int32_t block) {
  check_block(block);
  if (noisy.size() != clean.size())
    throw Error(code::kInvalidOption, "x_t has " + std::to_string(noisy.size()) + " ids, x_0 has " +
                                          std::to_string(clean.size()) + "; allowed: as many");
  const auto length = static_cast<int32_t>(clean.size());
  const int32_t first = append(rows, noisy), base = append(rows, clean);
  for (int32_t i = 0; i < length; i++) {
    const int32_t begin = i / block * block;
    rows.sight.push_back({{{first + begin, first + block_end(i, block, length)}, {base, base + begin}}});
  }
  for (int32_t i = 0; i < length; i++) rows.sight.push_back({{{base, base + block_end(i, block, length)}, {}}});
  if (length > 0) rows.samples.push_back({first, base + length});
}

void add_clean_and_views(TrainingRows& rows, std::span<const int32_t> clean,
                         std::span<const std::vector<int32_t>> views, int32_t first, int32_t block) {
  check_block(block);
  const auto length = static_cast<int32_t>(clean.size());
  if (first % block != 0 || first < 0 || first >= length)
    throw Error(code::kInvalidOption, "first is " + std::to_string(first) + "; allowed: the begin of a block of " +
                                          std::to_string(block) + " below " + std::to_string(length));
  const int32_t seen = (length - 1) / block * block;
  const int32_t base = append(rows, clean.first(static_cast<size_t>(seen)));
  for (int32_t i = 0; i < seen; i++) rows.sight.push_back({{{base, base + block_end(i, block, length)}, {}}});
  for (const std::vector<int32_t>& view : views) {
    if (static_cast<int32_t>(view.size()) != length - first)
      throw Error(code::kInvalidOption,
                  "a view has " + std::to_string(view.size()) + " ids; allowed: " + std::to_string(length - first));
    const int32_t own = append(rows, view, first);
    for (int32_t i = first; i < length; i++) {
      const int32_t begin = i / block * block;
      rows.sight.push_back({{{base, base + begin}, {own + begin - first, own + block_end(i, block, length) - first}}});
    }
  }
  rows.samples.push_back({base, static_cast<int32_t>(rows.ids.size())});
}

}  // namespace sdar::train
