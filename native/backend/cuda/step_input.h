// What a step takes from the host: rows, pages, the division of attention, slots. Laid out in pinned memory and copied
// at the start of the step to where its launches expect it, so that the same launches can run again on other data.
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/denoise.h"
#include "backend/cuda/step_array.h"

namespace sdar::cuda {

/// What the launches of a step depend on besides data in memory: the sizes of grids.
struct StepShape {
  int32_t rows = 0;
  int32_t narrow = 0, wide = 0, merges = 0;  ///< attention items
  int32_t sampled = 0;                       ///< rows of the lm_head
  int32_t slots = 0;
  bool sampling = false;  ///< some row has a temperature
  bool ranking = false;   ///< some row tells candidates, a wanted id or the best of all
  auto operator<=>(const StepShape&) const = default;
};

/// Sizes are rounded up, so that few shapes come up: few rows to a power of two, many to a multiple of 64 or 256. The
/// rows, items and slots beyond are marked as nobody's.
int32_t rounded_rows(int32_t rows);
/// Rows of what is kept for steps of at most `max_rows`.
int32_t buffer_rows(int32_t max_rows);

class StepInput {
 public:
  StepInput(Device& device, const ModelShape& shape, int32_t max_rows);

  /// A step of at most max_rows rows and kMaxSlots sequences: rounded sizes, a slot for each active block in the step's
  /// order.
  void lay_out(const Step& step);
  /// Issues the copies to the device.
  void upload();
  /// Issues the copies of outcomes and results to the host.
  void download() const;

  const StepShape& shape() const { return shape_; }
  /// Of all sequences; shape().sampled is rounded up.
  int32_t sampled_count() const { return static_cast<int32_t>(masked_count_); }
  /// Grows when an array has moved: launches that were kept with its address are void.
  uint64_t version() const { return version_; }
  StepTables tables() const { return {segments_.get(), row_segment_.get(), page_ids_.get()}; }
  SampledRows sampled_rows() const;
  DenoiseTables denoise_tables(int32_t mask_id) const;
  /// all_logits: of greedy rows, too.
  GatherRowsParams gather_rows(int32_t mask_id, bool all_logits) const;

  // Read by launches, or by them alone.
  StepArray<int32_t> ids;
  StepArray<AttentionItem> narrow, wide;
  StepArray<MergeItem> merges;
  StepArray<DeviceSampledRow> sampled;
  StepArray<int32_t> sampled_at, sampled_counts;
  StepArray<DenoiseOutcome> outcomes;
  StepArray<DeviceSampledToken> results;
  StepArray<RankedToken> ranked;  ///< of each slot, in order: as SequenceResult's lists

 private:
  template <class T>
  void reserve(StepArray<T>& array, size_t count) {
    if (array.reserve(count)) version_++;
  }
  void lay_out_rows(std::span<const StepSequence> sequences, int32_t rows);
  /// The suppressed ids and the biases of a step's sequences, one list after the other.
  void begin_lists(size_t suppressed, size_t bias);
  int32_t add_suppressed(std::span<const int32_t> ids);
  int32_t add_bias(std::span<const int32_t> ids, std::span<const float> values);
  void add_slot(const StepSequence& sequence);
  void lay_out_limits(std::span<const StepSequence> sequences);
  bool has_limits(const StepSequence& sequence) const;
  int32_t mask_of(const uint64_t* allowed, std::span<const int32_t> suppressed);
  int32_t add_penalised(std::span<const PenalisedToken> tokens);

  int32_t group_, max_rows_;
  StepShape shape_;
  uint64_t version_ = 0;
  size_t segment_count_ = 0, page_count_ = 0, slot_count_ = 0, suppressed_count_ = 0, bias_count_ = 0;
  size_t masked_count_ = 0;  ///< sampled rows that are somebody's
  size_t penalised_count_ = 0, ranked_count_ = 0;
  int32_t vocabulary_;
  /// What a mask is made of: pointers of allowed ids and of suppressed ones, and the number of these.
  using MaskSource = std::tuple<const uint64_t*, const int32_t*, size_t>;
  std::map<MaskSource, int32_t> mask_numbers_;
  std::vector<MaskSource> mask_sources_;
  std::vector<DeviceRowLimits> row_limits_;
  std::vector<int32_t> slot_limits_;  ///< of each slot, in row_limits_
  std::vector<DeviceSegment> device_segments_;
  StepArray<DeviceSegment> segments_;
  StepArray<int32_t> row_segment_, page_ids_, tokens_, suppressed_, bias_ids_;
  StepArray<float> bias_values_;
  StepArray<uint64_t> masks_;
  StepArray<DeviceRowLimits> limits_;
  StepArray<PenalisedToken> penalised_;
  StepArray<DenoiseSlot> slots_;
};

}  // namespace sdar::cuda
