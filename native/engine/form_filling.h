// Answers of a given form, a request's part of it: which ids a position may take, and the most probable tokens of a
// block's masked positions that together are part of a text of the form.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/step.h"
#include "form/live.h"

namespace sdar {

/// Candidates asked of each position: those of a block are combined.
inline constexpr int32_t kBlockCandidates = 16, kNextCandidates = 8;

class FormFilling {
 public:
  /// A text of at most `left` tokens, at least form->least_tokens(), that ends with `end_id` where nothing else may come.
  FormFilling(std::shared_ptr<form::LiveForm> form, int32_t end_id, int32_t left);
  ~FormFilling();
  FormFilling(const FormFilling&) = delete;
  FormFilling& operator=(const FormFilling&) = delete;

  /// The next token is final. It is one that choose(), decide() or forced() gave for this place.
  void accept(int32_t id);

  /// Tokens that the form alone decides, for the next positions of a block, `tokens` (−1: masked). None that would not
  /// go with those filled behind.
  std::vector<int32_t> forced(std::span<const int32_t> tokens);

  /// What a step is asked about a block's positions, `tokens` from the next one to be accepted on; to limits[i].
  /// `drafted`: of rows that each see the filling's tokens before them, so that each of them is exact.
  void ask(std::span<const int32_t> tokens, std::span<RowLimits> limits, bool drafted = false);
  /// After the step: the most probable filling. `offset` is that of tokens[0] in the active block, `masked` the step's.
  /// Writes to result.at what each masked position gets; returns the offsets before the text's end, which alone are
  /// worth filling: one at least. A position's confidence and log probability are the model's own.
  uint64_t choose(std::span<const int32_t> tokens, int32_t offset, uint64_t masked, const SamplingParams& sampling,
                  SequenceResult& result);

  /// After a step of rows that verify the filling, from the first masked position on, which is the `lead`-th from the next
  /// one and bit 0 of `masked`: those of its tokens that the rows decide as well, from the left; the first one is kept in
  /// any case. A filling holds as a whole, so that nothing else can stand in the place of a token that is refused.
  uint64_t verify(size_t lead, uint64_t masked, const SamplingParams& sampling, SequenceResult& result);

  /// Autoregressive: as ask(), for the rows that decide the next position and those after each of `proposed`. Returns
  /// how many of these go with the form; only limits[0 … that] are written.
  int32_t ask_next(std::span<const int32_t> proposed, std::span<RowLimits> limits);
  /// Writes to result.at what the rows decide, as far as each agrees with what was proposed.
  void decide(std::span<const int32_t> proposed, const SamplingParams& sampling, SequenceResult& result);

 private:
  struct Node {
    form::State state;
    double score;
    int32_t parent, token;
    float logit;
    bool on_path;  ///< reached by the last step's filling, which keeps one within reach
  };
  using Level = std::vector<Node>;
  struct Row;

  void allow(form::State state, RowLimits& limits);
  void plan_path(std::span<const int32_t> tokens);
  void extend(const Level& from, size_t parent, int32_t token, double score, float logit, size_t index, Level& to);
  static void prune(Level& level);

  std::shared_ptr<form::LiveForm> form_;
  int32_t end_id_;
  int32_t left_;               ///< positions that may still be written
  form::State state_;          ///< after what was accepted
  std::vector<int32_t> path_;  ///< a filling from the next position on that is valid; −1 after the text's end: any
  std::vector<std::shared_ptr<const form::Mask>> masks_;  ///< that limits point to
  std::vector<Level> levels_;
};

}  // namespace sdar
