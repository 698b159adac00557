#include "engine/forms.h"

#include <chrono>
#include <string>

#include "form/form.h"
#include "util/error.h"

namespace sdar {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kAhead = std::chrono::milliseconds(10);  // for masks that are found before they are asked for
constexpr size_t kMasksAhead = 64;

}  // namespace

Forms::Forms(TokenBytes tokens, std::vector<int32_t> end_ids, int32_t vocabulary)
    : tokens_(std::move(tokens)), end_ids_(std::move(end_ids)), size_(vocabulary) {}

std::shared_ptr<const form::Vocabulary> Forms::vocabulary() {
  std::lock_guard lock(mutex_);
  if (!vocabulary_) {
    vocabulary_ = std::make_shared<form::Vocabulary>(std::string(tokens_.bytes.begin(), tokens_.bytes.end()),
                                                     tokens_.offsets, end_ids_, size_);
    tokens_ = {};
  }
  return vocabulary_;
}

bool Forms::owns(const form::LiveForm& form) const {
  std::lock_guard lock(mutex_);
  return vocabulary_.get() == &form.vocabulary();
}

std::shared_ptr<form::LiveForm> Forms::compile(std::string_view json, const std::function<bool()>& stop) {
  if (end_ids_.empty())
    throw Error(code::kInvalidOption,
                "format: this checkpoint names no end token, so that no text of a form could end");
  if (tokens_.offsets.empty() && !vocabulary_)
    throw Error(code::kInvalidOption, "format: this checkpoint has no tokenizer, so that its tokens spell nothing");
  auto program = form::compile(json);
  auto form = std::make_shared<form::LiveForm>(std::move(program), vocabulary());
  if (form->least_tokens() == form::kNoTokens)
    throw Error(code::kInvalidOption, "format: the tokens of this checkpoint spell no text of this form");
  const auto end = Clock::now() + kAhead;
  form->prepare(kMasksAhead, [&] { return stop() || Clock::now() > end; });
  return form;
}

}  // namespace sdar
