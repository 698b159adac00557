// GBNF, as llama.cpp's grammars/README.md describes it; its matches of single tokens are refused.
#include <map>

#include "form/char_machine.h"
#include "form/compilers.h"
#include "form/regex_syntax.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr int kMostDepth = 250;
constexpr int64_t kMostTimes = 100'000;
constexpr int kMostQuantifiers = 4;  // of one item, as in "a"+?

bool is_name(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class Parser {
 public:
  Parser(Builder& builder, std::string_view grammar, const std::string& at)
      : builder_(builder), text_(code_points(grammar)), at_(at) {}

  uint32_t parse() {
    skip(true);
    while (!done()) rule();
    for (const auto& [name, r] : rules_)
      if (!r.defined) throw Error(code::kInvalidOption, at_ + ": the rule " + name + " is used but not defined");
    const auto root = rules_.find("root");
    if (root == rules_.end()) throw Error(code::kInvalidOption, at_ + ": there is no rule root");
    return root->second.rule;
  }

 private:
  struct Named {
    uint32_t rule;
    bool defined = false;
  };

  bool done() const { return next_ == text_.size(); }
  char32_t peek(size_t ahead = 0) const { return next_ + ahead < text_.size() ? text_[next_ + ahead] : 0; }
  bool take(char32_t c) { return !done() && text_[next_] == c && (next_++, true); }
  [[noreturn]] void fail(const std::string& what) const {
    size_t line = 1;
    for (size_t i = 0; i < next_; i++) line += text_[i] == '\n';
    throw Error(code::kInvalidOption, at_ + ": line " + std::to_string(line) + ": " + what);
  }
  /// Spaces and comments; with `lines`, line breaks too.
  void skip(bool lines) {
    while (!done()) {
      const char32_t c = peek();
      if (c == '#')
        while (!done() && peek() != '\n' && peek() != '\r') next_++;
      else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')))
        next_++;
      else
        return;
    }
  }

  Named& named(const std::string& name) {
    const auto [at, added] = rules_.try_emplace(name);
    if (added) at->second.rule = builder_.rule(name);
    return at->second;
  }
  std::string name() {
    std::string out;
    while (!done() && is_name(peek())) out += static_cast<char>(text_[next_++]);
    if (out.empty()) fail("a rule's name is expected (letters, digits, - and _)");
    return out;
  }

  void rule() {
    Named& r = named(name());
    if (r.defined) fail("the rule " + builder_[r.rule].name + " is defined twice");
    r.defined = true;
    skip(false);
    if (!take(U':') || !take(U':') || !take(U'=')) fail("::= is expected after a rule's name");
    skip(true);
    nodes_.clear();
    const uint32_t node = alternatives(false);
    skip(false);
    if (!done() && peek() != '\n' && peek() != '\r') fail("a line break is expected after a rule");
    skip(true);
    const uint32_t start = builder_[r.rule].start, accept = builder_[r.rule].accept;
    build(node, start, accept);
  }

  uint32_t add(RegexNode node) {
    nodes_.push_back(std::move(node));
    return static_cast<uint32_t>(nodes_.size() - 1);
  }

  uint32_t alternatives(bool nested) {
    if (++depth_ > kMostDepth) fail("groups are nested deeper than " + std::to_string(kMostDepth));
    std::vector<uint32_t> kids{sequence(nested)};
    while (take(U'|')) {
      skip(true);
      kids.push_back(sequence(nested));
    }
    depth_--;
    return add({.kind = RegexNode::kAlternatives, .kids = std::move(kids)});
  }

  uint32_t sequence(bool nested) {
    std::vector<uint32_t> kids;
    for (;;) {
      skip(nested);
      uint32_t item;
      const char32_t c = peek();
      if (c == '"') {
        item = literal();
      } else if (c == '[') {
        item = add({.kind = RegexNode::kSet, .set = char_class()});
      } else if (c == '.') {
        next_++;
        item = add({.kind = RegexNode::kSet, .set = CharSet::all()});
      } else if (c == '(') {
        next_++;
        skip(true);
        item = alternatives(true);
        skip(true);
        if (!take(U')')) fail("a ( without its )");
      } else if (c == '<' || c == '!') {
        fail("a match of a token (<…>), which is not supported; write its text");
      } else if (!done() && is_name(c)) {
        item = add({.kind = RegexNode::kRule, .rule = named(name()).rule});
      } else {
        break;
      }
      kids.push_back(quantified(item, nested));
    }
    return add({.kind = RegexNode::kConcat, .kids = std::move(kids)});
  }

  uint32_t quantified(uint32_t item, bool nested) {
    for (int times = 0;; times++) {
      if (times > kMostQuantifiers) fail("more than " + std::to_string(kMostQuantifiers) + " repetitions of one item");
      skip(nested);
      int64_t least = 0, most = -1;
      if (take(U'*')) {
      } else if (take(U'+')) {
        least = 1;
      } else if (take(U'?')) {
        most = 1;
      } else if (take(U'{')) {
        skip(nested);
        least = most = count();
        skip(nested);
        if (take(U',')) {
          skip(nested);
          most = peek() == '}' ? -1 : count();
          skip(nested);
        }
        if (!take(U'}')) fail("a { without its }");
        if (most >= 0 && most < least) fail("a repetition's numbers are out of order");
      } else {
        return item;
      }
      item = add({.kind = RegexNode::kRepeat, .kids = {item}, .least = least, .most = most});
    }
  }
  int64_t count() {
    if (peek() < '0' || peek() > '9') fail("a number is expected in {}");
    int64_t n = 0;
    for (; !done() && peek() >= '0' && peek() <= '9'; next_++) {
      n = n * 10 + static_cast<int64_t>(peek() - '0');
      if (n > kMostTimes) fail("a repetition of more than " + std::to_string(kMostTimes));
    }
    return n;
  }

  char32_t character() {
    if (done()) fail("a literal or class that does not end");
    if (!take(U'\\')) return text_[next_++];
    const char32_t c = peek();
    next_ += !done();
    switch (c) {
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'n':
        return '\n';
      case '\\':
      case '"':
      case '[':
      case ']':
      case '^':
      case '-':
        return c;
      default:
        fail("the escape \\" + utf8_of({&c, 1}) +
             "; allowed are \\n \\r \\t \\\\ \\\" \\[ \\] \\^ \\- \\xXX \\uXXXX \\UXXXXXXXX");
    }
  }
  char32_t hex(int digits) {
    char32_t c = 0;
    for (int i = 0; i < digits; i++, next_++) {
      const char32_t d = peek(), lower = d | 32;
      if (d >= '0' && d <= '9')
        c = c * 16 + (d - '0');
      else if (lower >= 'a' && lower <= 'f')
        c = c * 16 + (lower - 'a' + 10);
      else
        fail("an escape that lacks its hexadecimal digits");
    }
    if (c > kLastCodePoint || (c >= 0xd800 && c < 0xe000)) fail("an escape that is no character");
    return c;
  }

  uint32_t literal() {
    next_++;
    std::vector<uint32_t> kids;
    while (!take(U'"')) kids.push_back(add({.kind = RegexNode::kSet, .set = CharSet::of(character())}));
    return add({.kind = RegexNode::kConcat, .kids = std::move(kids)});
  }
  CharSet char_class() {
    next_++;
    const bool negated = take(U'^');
    CharSet set;
    while (!take(U']')) {
      const char32_t low = character();
      char32_t high = low;
      if (peek() == '-' && peek(1) != ']') {
        next_++;
        high = character();
      }
      if (high < low) fail("a range that is out of order");
      set.add(low, high);
    }
    return negated ? set.complement() : set;
  }

  /// Depth is bounded by alternatives().
  void build(uint32_t node, uint32_t from, uint32_t to) {
    const RegexNode& n = nodes_[node];
    switch (n.kind) {
      case RegexNode::kSet:
        return builder_.chars(from, n.set, to, Encoding::kUtf8);
      case RegexNode::kRule:
        return builder_.call(from, n.rule, to);
      case RegexNode::kAlternatives:
        for (const uint32_t kid : n.kids) build(kid, from, to);
        return;
      case RegexNode::kConcat:
        if (n.kids.empty()) return builder_.empty(from, to);
        for (size_t i = 0; i < n.kids.size(); i++) {
          const uint32_t next = i + 1 == n.kids.size() ? to : builder_.state();
          build(n.kids[i], from, next);
          from = next;
        }
        return;
      case RegexNode::kRepeat:
        for (int64_t i = 0; i < n.least || i < n.most; i++) {
          const uint32_t next = builder_.state();
          if (i >= n.least) builder_.empty(from, to);
          build(n.kids[0], from, next);
          from = next;
        }
        if (n.most < 0) {
          const uint32_t loop = builder_.state();
          builder_.empty(from, loop);
          build(n.kids[0], loop, loop);
          from = loop;
        }
        return builder_.empty(from, to);
      default:
        return;
    }
  }

  Builder& builder_;
  std::u32string text_;
  const std::string& at_;
  size_t next_ = 0;
  int depth_ = 0;
  std::map<std::string, Named> rules_;
  std::vector<RegexNode> nodes_;  // of the rule that is read
};

}  // namespace

uint32_t add_grammar(Builder& builder, std::string_view grammar, const std::string& at) {
  return Parser(builder, grammar, at).parse();
}

}  // namespace sdar::form
