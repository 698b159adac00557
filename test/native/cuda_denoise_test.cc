// A step's sampled rows, and select and unmask, on the device, under the SIMT executor, against denoise/choose.h and
// philox.h on the host.
#include "backend/cuda/kernels/denoise.h"
#include "cuda_tensors.h"
#include "denoise/choose.h"
#include "denoise/philox.h"

using namespace sdar;
using namespace oracle;

namespace {

constexpr int32_t kMaskId = 99;

struct Tables {
  std::vector<cuda::DenoiseSlot> slots;
  std::vector<int32_t> tokens;
  std::vector<cuda::DeviceRowLimits> limits{{}};
  int rows = 0, masked = 0, active = 0, positions = 0, limited = 0;

  Tables(Random& random, int count) {
    for (int i = 0; i < count; i++) {
      cuda::DenoiseSlot s;
      s.block_length = i % 7 == 0 ? 64 : 1 + random.below(40);
      for (int offset = 0; offset < s.block_length; offset++) {
        s.masked |= uint64_t{random.below(3) > 0} << offset;
        tokens.push_back(random.below(90));
      }
      tokens.resize(static_cast<size_t>(i + 1) * 64, -1);
      s.seed = static_cast<uint64_t>(random.below(1 << 30)) << 20;
      s.params = {static_cast<Strategy>(random.below(kStrategies)), random.below(6), random.between(0.2, 0.9),
                  random.between(0.2, 3), random.between(0.1, 4)};
      s.position = 64 * random.below(9), s.step = random.below(5), s.answer = random.below(3);
      s.temperature = random.below(2) ? random.between(0.5, 1) : 0;
      s.top_p = random.between(0.5, 1), s.top_k = random.below(50), s.sampled_confidence = random.below(2);
      s.min_p_range = -random.between(0, 3);
      s.suppressed = random.below(9), s.suppressed_count = random.below(3), s.early_count = 1 + random.below(2);
      s.free_from = s.position + random.below(20);
      s.bias = random.below(9), s.bias_count = random.below(3);
      s.candidates = random.below(2) * random.below(33), s.top = random.below(2) * random.below(21);
      s.tells_wanted = random.below(2), s.ranked = random.below(1000);
      s.limits = random.below(2) ? static_cast<int32_t>(limits.size()) : -1;
      for (int offset = 0; s.limits >= 0 && offset < s.block_length; offset++)
        limits.push_back({random.below(9) - 1, random.below(90) - 1});
      s.penalised = random.below(9), s.penalised_count = random.below(3), s.repetition = random.between(0.5, 2);
      if (i % 5 == 3) {
        s.row = -1;
      } else {
        s.row = rows + 2;
        rows += 2 + s.block_length;
        masked += count_bits(s.masked);
        limited += s.limits < 0 ? 0 : count_bits(s.masked);
        active++;
        positions += s.block_length;
      }
      slots.push_back(s);
    }
  }
};

/// Gathers rows, makes up results, fills, and compares with the host's choice; and costs with cost.h when counting.
void steps(Random& random, int count, int spare, bool counting = false) {
  const Tables t(random, count);
  const Buffer<cuda::DenoiseSlot> slots(t.slots, "slots");
  const Buffer<int32_t> tokens(t.tokens, "tokens"), ids(static_cast<size_t>(t.rows), "ids"),
      rows(static_cast<size_t>(t.masked + spare), "rows"),
      counts(static_cast<size_t>(cuda::ceil_div(t.masked + spare, cuda::kLmHeadChunk)), "counts");
  const Buffer<cuda::DenoiseOutcome> outcomes(static_cast<size_t>(count), "outcomes");
  const Buffer<cuda::DeviceSampledRow> sampled(static_cast<size_t>(t.masked + spare), "sampled rows");
  const cuda::DenoiseTables tables{slots.get(), tokens.get(), outcomes.get(), count, kMaskId};
  const Buffer<cuda::DeviceRowLimits> limits(t.limits, "limits");
  const cuda::GatherRowsParams args{tables,           sampled.get(), rows.get(), counts.get(),
                                    t.masked + spare, ids.get(),     0,          limits.get()};
  cuda::gather_rows(nullptr, args);
  CHECK(claimed("denoise.cu", "gather_rows"));
  if (counting) check_cost(cuda::gather_rows_cost(args, t.active, t.masked, t.positions, t.limited));

  const std::vector<int32_t> chunks = counts.values();
  for (int chunk = 0; chunk < static_cast<int>(chunks.size()); chunk++)
    CHECK(chunks[chunk] == std::clamp(t.masked - chunk * cuda::kLmHeadChunk, 0, cuda::kLmHeadChunk));
  const std::vector<int32_t> got_rows = rows.values();
  std::vector<cuda::DeviceSampledRow> got(static_cast<size_t>(t.masked));
  for (int i = 0; i < t.masked; i++) {  // the end of the struct is padding
    cuda_host::download(&got[i], sampled.get() + i, offsetof(cuda::DeviceSampledRow, repetition) + sizeof(float));
  }
  std::vector<cuda::DeviceSampledToken> results(static_cast<size_t>(t.masked));
  for (auto& r : results) {
    r.token = random.below(90), r.finite = random.below(200) > 0;
    r.confidence = static_cast<float>(random.below(20)) / 20, r.entropy = random.between(0, 2);
  }
  int index = 0;
  for (int i = 0; i < count; i++) {
    const cuda::DenoiseSlot& s = t.slots[i];
    if (s.row < 0) continue;
    for (int offset = 0; offset < s.block_length; offset++) {
      int32_t id;
      cuda_host::download(&id, ids.get() + s.row + offset, sizeof id);
      const bool masked = s.masked >> offset & 1;
      CHECK(id == (masked ? kMaskId : t.tokens[i * 64 + offset]));
      if (!masked) continue;
      const cuda::DeviceSampledRow& r = got[index];
      CHECK(got_rows[index] == s.row + offset);
      CHECK(r.uniform == philox_uniform(s.seed, s.position + offset, s.step, s.answer));
      CHECK(r.temperature == s.temperature && r.top_p == s.top_p && r.top_k == s.top_k);
      CHECK(r.min_p_range == s.min_p_range);
      CHECK(r.sampled_confidence == s.sampled_confidence && r.suppressed == s.suppressed && r.bias == s.bias);
      CHECK(r.suppressed_count == s.suppressed_count + (s.position + offset < s.free_from ? s.early_count : 0));
      const bool stores = s.temperature > 0 || s.candidates > 0 || s.top > 0 || s.tells_wanted;
      CHECK(r.bias_count == s.bias_count && r.logits == (stores ? index % cuda::kLmHeadChunk : -1));
      const int all = count_bits(s.masked), before = count_bits(s.masked & ((uint64_t{1} << offset) - 1));
      const cuda::DeviceRowLimits limit = s.limits < 0 ? cuda::DeviceRowLimits{} : t.limits[s.limits + offset];
      CHECK(r.mask == limit.mask && r.wanted == limit.wanted);
      CHECK(r.candidates == s.candidates && r.candidates_at == s.ranked + before * s.candidates);
      CHECK(r.wanted_at == (s.tells_wanted ? s.ranked + all * s.candidates + before : -1));
      CHECK(r.top == s.top && r.top_at == s.ranked + all * (s.candidates + s.tells_wanted) + before * s.top);
      CHECK(r.penalised == s.penalised && r.penalised_count == s.penalised_count && r.repetition == s.repetition);
      CHECK(r.offset == offset);
      index++;
    }
  }
  CHECK(index == t.masked);
  for (int i = t.masked; i < t.masked + spare; i++) CHECK(got_rows[i] == 0);

  const Buffer<cuda::DeviceSampledToken> device_results(results, "results");
  cuda::select_unmask(nullptr, {tables, device_results.get()});
  CHECK(claimed("denoise.cu", "select_unmask"));
  if (counting) {
    int filled = 0;
    for (int i = 0; i < count; i++) {
      uint64_t bits = 0;
      if (t.slots[i].row >= 0) cuda_host::download(&bits, &outcomes.get()[i].filled, sizeof bits);
      filled += count_bits(bits);
    }
    check_cost(cuda::select_unmask_cost(tables, t.active, t.masked, filled));
  }
  const std::vector<cuda::DenoiseSlot> after = slots.values();
  const std::vector<int32_t> filled_tokens = tokens.values();
  index = 0;
  for (int i = 0; i < count; i++) {
    const cuda::DenoiseSlot& s = t.slots[i];
    if (s.row < 0) {
      CHECK(after[i].masked == s.masked && after[i].step == s.step);
      continue;
    }
    float confidence[64] = {}, entropy[64] = {};
    std::vector<int32_t> token(t.tokens.begin() + i * 64, t.tokens.begin() + i * 64 + 64);
    bool finite = true;
    const int first = index;
    for (int offset = 0; offset < s.block_length; offset++) {
      if (!(s.masked >> offset & 1)) continue;
      confidence[offset] = results[index].confidence, entropy[offset] = results[index].entropy;
      finite = finite && results[index].finite;
      index++;
    }
    const uint64_t want =
        finite ? choose_positions(s.params, s.block_length, s.step, s.masked, confidence, entropy) : 0;
    cuda::DenoiseOutcome outcome;
    cuda_host::download(&outcome, outcomes.get() + i, sizeof outcome);
    CHECK(outcome.filled == want && outcome.masked == s.masked && outcome.first == first && outcome.finite == finite);
    CHECK(after[i].masked == (s.masked & ~want) && after[i].step == s.step + 1);
    for (int offset = 0, rank = first; offset < 64; offset++) {
      const bool masked = s.masked >> offset & 1;
      CHECK(filled_tokens[i * 64 + offset] == (want >> offset & 1 ? results[rank].token : token[offset]));
      rank += masked;
    }
  }
}

}  // namespace

TEST("denoise: sampled rows, ids and fills of slots of all kinds, some of which take no part") {
  cuda_host::each_order([] {
    Random random(1);
    for (int count : {1, 6, 41}) steps(random, count, random.below(70));
  });
}

TEST("denoise: bytes as cost.h tells") {
  Random random(2);
  steps(random, 37, 5, true);
  steps(random, 128, 0, true);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
