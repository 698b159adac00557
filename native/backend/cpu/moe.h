// Mixture of experts: the rows of all experts are computed together, in four parallel phases. Contract: backend/moe.h.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/ops.h"

namespace sdar::cpu {

class Moe {
 public:
  explicit Moe(Matmul& linear) : matmul_(linear) {}
  void run(const MoeArgs& args, float eps);
  int64_t experts_read() const { return experts_read_; }

 private:
  /// Fills the assignments: a row's experts ascending, then all of them ordered by expert, then row.
  void route(const MoeArgs& args, float eps);

  Matmul& matmul_;
  int64_t experts_read_ = 0;
  ActivationRows router_rows_, in_rows_, mlp_rows_;
  Buffer<float> logits_, mlp_, down_;
  std::vector<int32_t> order_;      ///< experts of a row by probability
  std::vector<int32_t> expert_;     ///< [M, top_k]
  std::vector<float> probability_;  ///< [M, top_k]
  std::vector<int32_t> slot_of_;    ///< [M, top_k]: where the assignment lies when ordered by expert
  std::vector<int32_t> row_of_;     ///< [slots]
  std::vector<int32_t> first_;      ///< [experts + 1]: first slot of an expert
  std::vector<int32_t> used_;       ///< experts with rows
};

}  // namespace sdar::cpu
