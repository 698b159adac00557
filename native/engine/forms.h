// Compiles forms of answers for one engine: over its tokens, with its end ids.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "engine/sequence.h"
#include "form/live.h"

namespace sdar {

class Forms {
 public:
  /// `vocabulary`: the model's number of ids.
  Forms(TokenBytes tokens, std::vector<int32_t> end_ids, int32_t vocabulary);

  /// form::compile(json), and masks of its first states for as long as a typical form needs. Any thread. Throws
  /// Error(INVALID_OPTION), also when the model has no end token, or tokens that cannot spell any text of the form.
  std::shared_ptr<form::LiveForm> compile(std::string_view json, const std::function<bool()>& stop);
  bool owns(const form::LiveForm& form) const;

 private:
  std::shared_ptr<const form::Vocabulary> vocabulary();

  mutable std::mutex mutex_;
  TokenBytes tokens_;  ///< until there is a vocabulary
  std::vector<int32_t> end_ids_;
  int32_t size_;
  std::shared_ptr<const form::Vocabulary> vocabulary_;
};

}  // namespace sdar
