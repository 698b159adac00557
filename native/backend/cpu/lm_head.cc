#include "backend/cpu/lm_head.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace sdar::cpu {
namespace {

constexpr int64_t kChunkRows = 128;  // rows that pass over the weights together

}  // namespace

void LmHead::run(const LmHeadArgs& args, const StepRows& rows, float eps) {
  const size_t count = rows.sampled.size();
  for (size_t begin = 0; begin < count; begin += kChunkRows) {
    chunk(args, rows, eps, begin, static_cast<int64_t>(std::min<size_t>(count - begin, kChunkRows)));
  }
}

void LmHead::chunk(const LmHeadArgs& args, const StepRows& step, float eps, size_t begin, int64_t m) {
  const PackedWeight& weight = packed(*args.weight);
  const int64_t vocabulary = weight.spec.rows, tiles = (vocabulary + kTile - 1) / kTile;
  const auto requests = step.sampled.subspan(begin, static_cast<size_t>(m));
  int64_t sampled = 0;
  row_of_.resize(m), logits_of_.assign(m, nullptr);
  for (int64_t i = 0; i < m; i++) {
    row_of_[i] = requests[i].row;
    sampled += requests[i].temperature > 0;
  }
  float* next = step.logits || !sampled ? nullptr : sampled_.reserve(static_cast<size_t>(sampled * vocabulary));
  for (int64_t i = 0; i < m; i++) {
    if (step.logits) {
      logits_of_[i] = step.logits + (static_cast<int64_t>(begin) + i) * vocabulary;
    } else if (requests[i].temperature > 0) {
      logits_of_[i] = next, next += vocabulary;
    }
  }
  tile_logits_.resize(static_cast<size_t>(matmul_.pool().threads()));
  for (auto& buffer : tile_logits_) buffer.reserve(static_cast<size_t>(m * kTile));
  Partial* partials = partials_.reserve(static_cast<size_t>(m * tiles));

  prepare_rows(requests);

  const RowSource source{args.x, weight.spec.cols, packed(*args.norm).vector(), eps, row_of_.data()};
  const Activations rows = matmul_.prepare(source, weight.format, m, rows_);
  matmul_.parallel_for(tiles, m * vocabulary * weight.spec.cols, [&](int64_t tile, int worker) {
    float* logits = tile_logits_[worker].data();
    const int64_t first = tile * kTile, n = std::min(kTile, vocabulary - first);
    for (int64_t c = 0; c < n; c += kPanel) {
      matmul_.multiply_panel(weight, (first + c) / kPanel, rows, m, Epilogue::store, logits + c, kTile);
    }
    for (int64_t i = 0; i < m; i++) {
      partials[i * tiles + tile] = reduce(i, requests[i], logits + i * kTile, first, n, worker);
      if (logits_of_[i]) std::copy_n(logits + i * kTile, n, logits_of_[i] + first);
    }
  });
  matmul_.parallel_for(m, sampled * vocabulary * 16, [&](int64_t i, int worker) {
    const std::span<const float> logits(logits_of_[i], logits_of_[i] ? static_cast<size_t>(vocabulary) : 0);
    step.tokens[begin + i] = merge(i, requests[i], partials + i * tiles, logits, tiles, worker);
  });
}

void LmHead::prepare_rows(std::span<const SampledRow> requests) {
  states_.assign(requests.size(), {});
  suppressed_.clear();
  list_count_ = 0;
  for (size_t i = 0; i < requests.size(); i++) {
    const SampledRow& r = requests[i];
    RowState& state = states_[i];
    // Rows of one sequence mostly share their ids.
    if (i > 0 && r.suppressed.data() == requests[i - 1].suppressed.data() &&
        r.suppressed.size() == requests[i - 1].suppressed.size()) {
      state = states_[i - 1];
    } else {
      state.suppressed = suppressed_.size();
      state.suppressed_count = r.suppressed.size();
      suppressed_.insert(suppressed_.end(), r.suppressed.begin(), r.suppressed.end());
      std::sort(suppressed_.begin() + static_cast<std::ptrdiff_t>(state.suppressed), suppressed_.end());
    }
    const bool wants_lists = r.allowed || !r.candidates.empty() || !r.top.empty();
    state.lists = wants_lists ? list_count_++ : -1;
  }
  if (list_count_ == 0) return;
  const int64_t threads = matmul_.pool().threads();
  Lists* all = lists_.reserve(static_cast<size_t>(threads * list_count_));
  std::uninitialized_default_construct_n(all, threads * list_count_);
  for (size_t i = 0; i < requests.size(); i++) {
    const auto candidates = static_cast<int32_t>(requests[i].candidates.size());
    for (int worker = 0; worker < threads && states_[i].lists >= 0; worker++) {
      Lists& own = *lists(static_cast<int64_t>(i), worker);
      own.chosen.clear(std::max(candidates, requests[i].allowed ? 1 : 0));
      own.top.clear(static_cast<int32_t>(requests[i].top.size()));
    }
  }
}

LmHead::Partial LmHead::reduce(int64_t row, const SampledRow& request, float* logits, int64_t first, int64_t n,
                               int worker) {
  add_bias(request, logits, first, n);
  penalise(request, logits, first, n);
  Partial partial;
  partial.stats = matmul_.kernels().logit_stats(logits, n, 1.0f);
  partial.best = partial.stats.max;
  partial.best_id = static_cast<int32_t>(first) + partial.stats.argmax;
  if (request.wanted >= first && request.wanted < first + n && request.wanted_logit)
    *request.wanted_logit = {request.wanted, logits[request.wanted - first]};

  const RowState& state = states_[row];
  const auto begin = suppressed_.begin() + static_cast<std::ptrdiff_t>(state.suppressed);
  const auto end = begin + static_cast<std::ptrdiff_t>(state.suppressed_count);
  auto id = std::lower_bound(begin, end, static_cast<int32_t>(first));
  const bool any_suppressed = id != end && *id < first + n;
  Lists* own = lists(row, worker);
  if (own) own->top.add_tile(matmul_.kernels(), logits, first, n, partial.stats.max, nullptr);
  if (!any_suppressed && !request.allowed) {
    if (own) own->chosen.add_tile(matmul_.kernels(), logits, first, n, partial.stats.max, nullptr);
    return partial;
  }
  TileMask mask;
  for (int64_t word = 0; word < kTile / 64; word++) {
    const int64_t left = n - word * 64;  // ids that there are
    const uint64_t real = left >= 64 ? ~uint64_t{0} : left > 0 ? (uint64_t{1} << left) - 1 : 0;
    mask.words[word] = real && request.allowed ? real & request.allowed[first / 64 + word] : real;
  }
  for (; id != end && *id < first + n; ++id) mask.words[(*id - first) / 64] &= ~(uint64_t{1} << (*id - first) % 64);
  if (own) own->chosen.add_tile(matmul_.kernels(), logits, first, n, partial.stats.max, &mask);
  if (request.allowed) return partial;
  const int32_t top = partial.stats.argmax;
  if (top >= 0 && mask.words[top / 64] >> top % 64 & 1) return partial;  // -1: no logit is finite
  partial.best_id = -1;
  for (int64_t i = 0; i < n; i++) {
    if (!(mask.words[i / 64] >> i % 64 & 1) || (partial.best_id >= 0 && !(logits[i] > partial.best))) continue;
    partial.best = logits[i];
    partial.best_id = static_cast<int32_t>(first + i);
  }
  return partial;
}

RankedToken LmHead::join_lists(int64_t row, const SampledRow& request) {
  Lists& all = *lists(row, 0);
  for (int worker = 1; worker < matmul_.pool().threads(); worker++) {
    all.chosen.add(lists(row, worker)->chosen);
    all.top.add(lists(row, worker)->top);
  }
  const auto tell = [](std::span<const RankedToken> best, std::span<RankedToken> to) {
    std::copy_n(best.begin(), std::min(best.size(), to.size()), to.begin());
  };
  tell(all.chosen.all(), request.candidates);
  tell(all.top.all(), request.top);
  return all.chosen.all().empty() ? RankedToken{} : all.chosen.all().front();
}

LmHead::Softmax LmHead::merge_softmax(const Partial* row, int64_t tiles, float scale) {
  Softmax all;
  all.max = row[0].stats.max;
  for (int64_t t = 1; t < tiles; t++) all.max = std::max(all.max, row[t].stats.max);
  double weighted = 0;
  for (int64_t t = 0; t < tiles; t++) {
    const LogitStats& stats = row[t].stats;
    const double shift = (static_cast<double>(stats.max) - all.max) * scale, factor = std::exp(shift);
    all.sum += factor * stats.sum;
    weighted += factor * (stats.weighted + stats.sum * shift);
  }
  all.entropy = std::max(std::log(all.sum) - weighted / all.sum, 0.0);
  return all;
}

SampledToken LmHead::merge(int64_t index, const SampledRow& request, Partial* row, std::span<const float> logits,
                           int64_t tiles, int worker) {
  SampledToken result;
  float chosen = 0;
  int32_t best_id = -1;
  for (int64_t t = 0; t < tiles; t++) {
    result.finite = result.finite && row[t].stats.finite;
    if (row[t].best_id >= 0 && (best_id < 0 || row[t].best > chosen)) chosen = row[t].best, best_id = row[t].best_id;
  }
  if (result.finite && lists(index, 0)) {
    const RankedToken best = join_lists(index, request);
    if (request.allowed) chosen = best.logit, best_id = best.id;
  }
  result.finite = result.finite && best_id >= 0;
  if (!result.finite) return result;

  const Softmax plain = merge_softmax(row, tiles, 1.0f);
  Softmax used = plain;
  result.token = best_id;
  float scale = 1;
  Choice choice;
  if (request.temperature > 0) {
    scale = inverse_temperature(request.temperature);
    choice = samplers_[worker].sample(matmul_.kernels(), logits, chosen, request);
    result.token = choice.token;
    chosen = logits[choice.token];
    for (int64_t t = 0; t < tiles; t++) {
      const auto tile = logits.subspan(t * kTile, std::min<size_t>(kTile, logits.size() - t * kTile));
      row[t].stats = matmul_.kernels().logit_stats(tile.data(), static_cast<int64_t>(tile.size()), scale);
    }
    used = merge_softmax(row, tiles, scale);
  }
  const double shifted = static_cast<double>(chosen) - plain.max;
  result.confidence = static_cast<float>(request.temperature > 0 && request.confidence == Confidence::sampled
                                             ? choice.probability
                                             : std::exp(shifted * scale) / used.sum);
  result.logprob = static_cast<float>(shifted - std::log(plain.sum));
  result.entropy = static_cast<float>(used.entropy);
  result.max = plain.max;
  result.logsumexp = static_cast<float>(plain.max + std::log(plain.sum));
  return result;
}

}  // namespace sdar::cpu
