// A whole answer of a conversation: reasoning before everything else, calls of tools, and text or a form around them.
#include <algorithm>
#include <set>

#include "form/char_set.h"
#include "form/compilers.h"
#include "util/error.h"

namespace sdar::form {
namespace {

class Answer {
 public:
  Answer(Builder& builder, const Value& form, AddForm add_form) : builder_(builder), form_(form), add_form_(add_form) {}

  uint32_t compile() {
    const uint32_t root = builder_.rule("answer");
    const uint32_t accept = builder_[root].accept, body = builder_.state();
    reasoning(builder_[root].start, body);
    const Value* calls = part(form_, "calls");
    if (!calls) {
      content(body, accept, "");
      return root;
    }
    const std::string& choice = text_of(*calls, "choice");
    const std::string& mark = text_of(*calls, "mark");
    const bool parallel = member(*calls, "parallel").boolean;
    if (choice == "none") {
      content(body, accept, mark);
      return root;
    }
    const uint32_t call = call_rule(*calls);
    if (choice == "auto" && !part(form_, "format")) {
      among_text(body, accept, call, text_without(mark), parallel);
    } else {
      if (choice == "auto") content(body, accept, mark);
      calls_alone(body, accept, call, parallel ? text_of(*calls, "between") : "");
    }
    return root;
  }

 private:
  static const Value* part(const Value& object, const char* name) {
    const Value* found = object.find(name);
    return found && !found->is(Value::kNull) ? found : nullptr;
  }
  static const Value& member(const Value& object, const char* name) {
    const Value* found = object.find(name);
    if (!found) throw Error(code::kInvalidOption, std::string("format: an answer lacks ") + name);
    return *found;
  }
  static const std::string& text_of(const Value& object, const char* name) { return member(object, name).text; }

  /// What is asked of the text, or any that does not have `mark`.
  void content(uint32_t from, uint32_t to, const std::string& mark) {
    const Value* format = part(form_, "format");
    builder_.call(from, format ? add_form_(builder_, *format) : text_without(mark), to);
  }

  void reasoning(uint32_t from, uint32_t to) {
    const Value* given = part(form_, "reasoning");
    if (!given) return builder_.empty(from, to);
    const std::string& close = text_of(*given, "close");
    const uint32_t inside = builder_.state(), done = builder_.state(), after = builder_.state();
    if (member(*given, "opened").boolean) {
      builder_.empty(from, inside);
    } else {
      builder_.empty(from, to);
      builder_.text(from, text_of(*given, "open"), inside);
    }
    builder_.call(inside, text_without(close), done);
    builder_.text(done, close, after);
    builder_.bytes(after, '\n', '\n', after);
    builder_.empty(after, to);
  }

  /// Any text in which these ASCII characters do not follow one another (Knuth, Morris and Pratt); "": any text.
  uint32_t text_without(const std::string& word) {
    const uint32_t rule = builder_.rule("text");
    std::vector<uint32_t> states(std::max<size_t>(word.size(), 1));
    for (uint32_t& state : states) {
      state = builder_.state();
      builder_.empty(state, builder_[rule].accept);
    }
    builder_.empty(builder_[rule].start, states[0]);
    const std::set<char> own(word.begin(), word.end());
    CharSet others = CharSet::all();
    for (const char c : own) others = others.without(CharSet::of(static_cast<char32_t>(c)));
    for (size_t matched = 0; matched < states.size(); matched++) {
      builder_.chars(states[matched], others, states[0], Encoding::kUtf8);
      for (const char c : own) {
        const std::string text = word.substr(0, matched) + c;
        size_t n = std::min(text.size(), word.size());
        while (text.substr(text.size() - n) != word.substr(0, n)) n--;
        if (n < word.size())
          builder_.bytes(states[matched], static_cast<uint8_t>(c), static_cast<uint8_t>(c), states[n]);
      }
    }
    return rule;
  }

  uint32_t call_rule(const Value& calls) {
    const uint32_t rule = builder_.rule("call");
    const uint32_t named = builder_.state(), closed = builder_.state();
    builder_.text(builder_[rule].start, text_of(calls, "begin") + R"({"name": )", named);
    const auto& tools = member(calls, "tools").items;
    for (size_t i = 0; i < tools.size(); i++) {
      const std::string& name = text_of(tools[i], "name");
      const uint32_t arguments = builder_.state();
      Value quoted;
      quoted.kind = Value::kString, quoted.text = name;
      builder_.text(named, quoted.json() + R"(, "arguments": )", arguments);
      const std::string at = "tools[" + std::to_string(i) + "].parameters";
      builder_.call(arguments, add_schema(builder_, member(tools[i], "schema"), Whitespace::kSpace, at), closed);
    }
    builder_.text(closed, "}" + text_of(calls, "end"), builder_[rule].accept);
    return rule;
  }

  void among_text(uint32_t from, uint32_t to, uint32_t call, uint32_t text, bool parallel) {
    const uint32_t after = builder_.state();
    builder_.call(from, text, after);
    builder_.empty(after, to);
    if (parallel) return builder_.call(after, call, from);
    const uint32_t called = builder_.state();
    builder_.call(after, call, called);
    builder_.call(called, text, to);
  }

  /// At least one; with `between`, as many as it likes.
  void calls_alone(uint32_t from, uint32_t to, uint32_t call, const std::string& between) {
    const uint32_t begin = builder_.state(), after = builder_.state();
    builder_.empty(from, begin);
    builder_.call(begin, call, after);
    builder_.empty(after, to);
    if (!between.empty()) builder_.text(after, between, begin);
  }

  Builder& builder_;
  const Value& form_;
  AddForm add_form_;
};

}  // namespace

uint32_t add_answer(Builder& builder, const Value& form, AddForm add_form) {
  return Answer(builder, form, add_form).compile();
}

}  // namespace sdar::form
