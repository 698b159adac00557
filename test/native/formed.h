// Requests of given forms, for tests of generations: a table of tokens, forms over it, and whether a text is of its form.
#pragma once
#include <cstdint>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "form/form.h"
#include "harness.h"

namespace formed {

using namespace sdar;

inline const char* const kForms[] = {
    R"({"type":"json"})",
    R"({"type":"json_schema","schema":{"type":"object","properties":{"name":{"type":"string","maxLength":12},)"
    R"("qty":{"type":"integer","minimum":0,"maximum":120},"tags":{"type":"array","items":{"enum":["a","bc","name"]}}},)"
    R"("required":["name","qty"],"additionalProperties":false}})",
    R"({"type":"json_schema","schema":{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":)"
    R"({"v":{"type":"number"},"c":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"],)"
    R"("additionalProperties":false}}}})",
    R"({"type":"json_schema","schema":{"anyOf":[{"type":"string","format":"date"},{"type":"boolean"},{"type":"null"}]}})",
    R"({"type":"json_schema","whitespace":"some","schema":{"type":"object","properties":{"a":{"type":"string"},)"
    R"("b":{"type":"boolean"}},"required":["a","b"],"additionalProperties":false}})",
    R"({"type":"regex","pattern":"[a-z]+"})",
    R"({"type":"regex","pattern":"(\\d{3}-){2}\\d{4}( ext \\d+)?"})",
    R"({"type":"regex","pattern":"\\p{L}{2,9}!"})",
    R"({"type":"regex","pattern":"the only answer"})",
    R"({"type":"choice","choices":["name","names","null","中文","中","true"]})",
    R"({"type":"choice","choices":["yes"]})",
    R"({"type":"grammar","grammar":"root ::= \"(\" root \")\" root | [a-f]*"})",
};
inline constexpr int kFormCount = static_cast<int>(std::size(kForms));

/// Every byte is a token, then come pieces; the rest, special tokens, have no bytes.
inline TokenBytes token_table(int32_t vocabulary) {
  static const std::vector<std::string> kPieces = {
      "{\"", "\":\"", "\",\"", "\":", "name", "qty",  "\"}",  "true",  "null", "the",   "only",  " answer", "123",
      "-",   "[]",    "}]",    "],",  "yes",  "中文", "é",    "\xe4",  "ab",   "cde",   "((",    "))",      "\\u00",
      "  ",  "\n",    "{}",    "\"a", "date", "2024", "-01-", "false", "\",",  "\"v\"", "c\":[", "tag",     "s\":"};
  TokenBytes table;
  table.offsets.push_back(0);
  const auto add = [&](std::string_view bytes) {
    table.bytes.insert(table.bytes.end(), bytes.begin(), bytes.end());
    table.offsets.push_back(static_cast<uint32_t>(table.bytes.size()));
  };
  // Shuffled, or a trained model would write what it knows.
  for (int b = 0; b < 256; b++) add(std::string(1, static_cast<char>(b * 77 + 31)));
  for (const std::string& piece : kPieces) add(piece);
  while (static_cast<int32_t>(table.offsets.size()) <= vocabulary - 20)
    add(kPieces[table.offsets.size() % kPieces.size()] + kPieces[table.offsets.size() * 7 % kPieces.size()]);
  return table;
}

/// An engine with a table of tokens, and the forms compiled for it.
class Formed {
 public:
  explicit Formed(const EngineOptions& options) : runner(options) {
    table = token_table(vocabulary());
    runner.engine().set_token_bytes(table);
    runner.engine().set_end_ids({vocabulary() - 4, vocabulary() - 3});
    for (const char* form : kForms) forms.push_back(runner.engine().forms()->compile(form, [] { return false; }));
  }
  int32_t vocabulary() { return runner.engine().model().config.shape.vocabulary; }

  /// Whether the text of a result is of the form; an end token, if any, comes last.
  bool valid(const Request& request, const harness::Result& result) {
    form::LiveForm fresh(form::compile(kForms[form_of(request)]),
                         std::shared_ptr<const form::Vocabulary>(&request.form->vocabulary(), [](auto) {}));
    form::State state = fresh.start();
    for (const TokenRecord& t : result.tokens) {
      if (state == form::kEnded) return false;
      state = fresh.advance(state, t.id);
    }
    return fresh.fits(state, 0);
  }
  int form_of(const Request& request) {
    for (int i = 0; i < kFormCount; i++)
      if (forms[i] == request.form) return i;
    return -1;
  }

  harness::Runner runner;
  TokenBytes table;
  std::vector<std::shared_ptr<form::LiveForm>> forms;
};

inline Request random_request(Formed& on, std::mt19937& random, int i, bool autoregressive) {
  Request r;
  for (unsigned k = random() % 4 ? 40 + random() % 30 : 1 + random() % 9; k > 0; k--)
    r.tokens.push_back(static_cast<int32_t>(random() % 500));
  r.form = on.forms[static_cast<size_t>(i % kFormCount)];
  const auto least = static_cast<int32_t>(r.form->least_tokens());
  r.max_tokens = least + static_cast<int32_t>(random() % 4 == 0 ? random() % 3 : random() % 90);
  if (r.max_tokens == 0) r.max_tokens = 1;
  r.temperature = std::vector<float>{0, 0.7f, 1.3f, 2}[random() % 4];
  r.top_k = random() % 4 == 0 ? 5 : 0;
  r.top_p = random() % 4 == 0 ? 0.8f : 1;
  r.seed = random();
  if (random() % 5 == 0) r.bias_ids = {40, 77}, r.bias_values = {30.0f, -30.0f};
  if (!autoregressive) {
    r.block_length = std::vector<int32_t>{1, 2, 4, 5, 8, 16, 32, 64}[random() % 8];
    r.denoise.strategy = static_cast<Strategy>(random() % kStrategies);
    r.denoise.threshold = random() % 2 ? 0.9f : 0.05f;
    r.denoise.entropy_bound = random() % 2 ? 0.3f : 9;
    r.denoise.factor = random() % 2 ? 2.0f : 80;
    r.denoise.steps = random() % 3 == 0 ? 2 : 0;
    r.drafts = random() % 4 == 0;
  }
  return r;
}

}  // namespace formed
