#include "form/regex_syntax.h"

#include <algorithm>

#include "form/char_machine.h"
#include "form/regex.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr int kMostDepth = 250;
constexpr int64_t kMostTimes = 1'000'000;

const CharSet kDigits = {{'0', '9'}};
const CharSet kWords = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharSet kSpaces = {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
                         {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const CharSet kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class Parser {
 public:
  Parser(std::string_view pattern, const std::string& at) : text_(code_points(pattern)), at_(at) {}

  RegexSyntax parse() {
    out_.root = alternatives();
    if (!done()) fail("a ) without its (");
    return std::move(out_);
  }

 private:
  bool done() const { return next_ == text_.size(); }
  char32_t peek(size_t ahead = 0) const { return next_ + ahead < text_.size() ? text_[next_ + ahead] : 0; }
  bool take(char32_t c) { return !done() && text_[next_] == c && (next_++, true); }
  bool take(std::u32string_view word) {
    if (std::u32string_view(text_).substr(next_).substr(0, word.size()) != word) return false;
    next_ += word.size();
    return true;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(code::kInvalidOption, at_ + ": at character " + std::to_string(next_) + " of the pattern: " + what);
  }
  uint32_t add(RegexNode node) {
    out_.nodes.push_back(std::move(node));
    return static_cast<uint32_t>(out_.nodes.size() - 1);
  }
  uint32_t add_set(CharSet set) { return add({.kind = RegexNode::kSet, .set = std::move(set)}); }
  uint32_t add_assertion(Assertion a) {
    out_.has_boundaries |= a == Assertion::kBoundary || a == Assertion::kNoBoundary;
    return add({.kind = RegexNode::kAssert, .assertion = a});
  }

  uint32_t alternatives() {
    if (++depth_ > kMostDepth) fail("groups are nested deeper than " + std::to_string(kMostDepth));
    std::vector<uint32_t> kids{sequence()};
    while (take(U'|')) kids.push_back(sequence());
    depth_--;
    return kids.size() == 1 ? kids[0] : add({.kind = RegexNode::kAlternatives, .kids = std::move(kids)});
  }

  uint32_t sequence() {
    std::vector<uint32_t> kids;
    while (!done() && peek() != '|' && peek() != ')') kids.push_back(quantified());
    if (kids.empty()) return add({.kind = RegexNode::kEmpty});
    return kids.size() == 1 ? kids[0] : add({.kind = RegexNode::kConcat, .kids = std::move(kids)});
  }

  uint32_t quantified() {
    const uint32_t kid = atom();
    int64_t least, most;
    if (take(U'*'))
      least = 0, most = -1;
    else if (take(U'+'))
      least = 1, most = -1;
    else if (take(U'?'))
      least = 0, most = 1;
    else if (peek() == '{')
      braces(least, most);
    else
      return kid;
    if (out_.nodes[kid].kind == RegexNode::kAssert || out_.nodes[kid].kind == RegexNode::kLook)
      fail("an assertion cannot be repeated");
    take(U'?');  // lazy: which match is found first, not what matches
    if (!done() && (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{')) fail("nothing to repeat");
    return repeat(kid, least, most);
  }

  /// Some repetitions of repetitions are one, which keeps them small.
  uint32_t repeat(uint32_t kid, int64_t least, int64_t most) {
    while (out_.nodes[kid].kind == RegexNode::kConcat && out_.nodes[kid].kids.size() == 1)
      kid = out_.nodes[kid].kids[0];
    const RegexNode& inner = out_.nodes[kid];
    if (inner.kind == RegexNode::kRepeat && inner.least <= 1 && (inner.most < 0 || inner.most == 1)) {
      const bool many = inner.most < 0 || most < 0;
      const int64_t fewest = inner.least == 0 ? 0 : least;
      const uint32_t of = inner.kids[0];
      if (most != 0) return add({.kind = RegexNode::kRepeat, .kids = {of}, .least = fewest, .most = many ? -1 : most});
    }
    return add({.kind = RegexNode::kRepeat, .kids = {kid}, .least = least, .most = most});
  }

  int64_t count() {
    if (peek() < '0' || peek() > '9') fail("a { that begins no quantifier; write \\{");
    int64_t n = 0;
    while (!done() && peek() >= '0' && peek() <= '9') {
      n = std::min<int64_t>(n * 10 + static_cast<int64_t>(peek() - '0'), kMostTimes + 1);
      next_++;
    }
    if (n > kMostTimes) fail("a quantifier of more than " + std::to_string(kMostTimes));
    return n;
  }
  void braces(int64_t& least, int64_t& most) {
    next_++;
    least = most = count();
    if (take(U',')) most = peek() == '}' ? -1 : count();
    if (!take(U'}')) fail("a { that begins no quantifier; write \\{");
    if (most >= 0 && most < least) fail("a quantifier's numbers are out of order");
  }

  uint32_t atom() {
    const char32_t c = text_[next_];
    switch (c) {
      case '^':
        return next_++, add_assertion(Assertion::kStart);
      case '$':
        return next_++, add_assertion(Assertion::kEnd);
      case '.':
        return next_++, add_set(kLineEnds.complement());
      case '(':
        return group();
      case '[':
        return next_++, add_set(char_class());
      case '\\':
        if (peek(1) == 'b') return next_ += 2, add_assertion(Assertion::kBoundary);
        if (peek(1) == 'B') return next_ += 2, add_assertion(Assertion::kNoBoundary);
        next_++;
        return add_set(escape(false));
      case '*':
      case '+':
      case '?':
        fail("nothing to repeat");
      case '{':
      case '}':
      case ']':
        fail(std::string("a lone ") + static_cast<char>(c) + "; write \\" + static_cast<char>(c));
      default:
        return next_++, add_set(CharSet::of(c));
    }
  }

  uint32_t group() {
    next_++;
    if (take(U'?')) {
      if (peek() == '=' || peek() == '!') {
        const bool negated = text_[next_++] == '!';
        const uint32_t inner = alternatives();
        if (!take(U')')) fail("a ( without its )");
        return add({.kind = RegexNode::kLook, .kids = {inner}, .negated = negated});
      }
      if (take(U"<=") || take(U"<!")) fail("a lookbehind, which is not supported");
      if (take(U'<')) {
        const size_t begin = next_;
        while (!done() && peek() != '>') next_++;
        if (next_ == begin || !take(U'>')) fail("a group's name that does not end");
      } else if (!take(U':')) {
        fail("modifiers of a group, which are not supported");
      }
    }
    const uint32_t inner = alternatives();
    if (!take(U')')) fail("a ( without its )");
    // A group may be repeated where what is in it may not.
    return add({.kind = RegexNode::kConcat, .kids = {inner}});
  }

  char32_t hex(size_t digits) {
    char32_t c = 0;
    for (size_t i = 0; i < digits; i++) {
      const char32_t d = peek();
      const int value = d >= '0' && d <= '9'                 ? static_cast<int>(d - '0')
                        : (d | 32) >= 'a' && (d | 32) <= 'f' ? static_cast<int>((d | 32) - 'a' + 10)
                                                             : -1;
      if (value < 0) fail("an escape that lacks its hexadecimal digits");
      c = c * 16 + static_cast<char32_t>(value);
      next_++;
    }
    return c;
  }
  char32_t unicode_escape() {
    if (take(U'{')) {
      char32_t c = 0;
      size_t digits = 0;
      while (!take(U'}')) {
        if (++digits > 8) fail("a code point beyond 10FFFF");
        c = c * 16 + hex(1);
      }
      if (digits == 0 || c > kLastCodePoint) fail("a code point beyond 10FFFF");
      return c;
    }
    const char32_t c = hex(4);
    if (c >= 0xd800 && c < 0xdc00 && peek() == '\\' && peek(1) == 'u') {
      const size_t back = next_;
      next_ += 2;
      const char32_t low = peek() == '{' ? 0 : hex(4);
      if (low >= 0xdc00 && low < 0xe000) return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
      next_ = back;
    }
    return c;
  }

  /// After the backslash.
  CharSet escape(bool in_class) {
    if (done()) fail("a \\ at the end");
    const char32_t c = text_[next_++];
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return kDigits.complement();
      case 'w':
        return kWords;
      case 'W':
        return kWords.complement();
      case 's':
        return kSpaces;
      case 'S':
        return kSpaces.complement();
      case 'p':
      case 'P':
        return property(c == 'P');
      case 't':
        return CharSet::of('\t');
      case 'n':
        return CharSet::of('\n');
      case 'v':
        return CharSet::of('\v');
      case 'f':
        return CharSet::of('\f');
      case 'r':
        return CharSet::of('\r');
      case 'x':
        return CharSet::of(hex(2));
      case 'u':
        return CharSet::of(unicode_escape());
      case 'k':
        fail("a backreference, which is not supported");
      case 'c': {
        const char32_t letter = peek() | 32;
        if (letter < 'a' || letter > 'z') fail("\\c without a letter");
        next_++;
        return CharSet::of(letter & 31);
      }
      case '0':
        if (peek() >= '0' && peek() <= '9') fail("an octal escape");
        return CharSet::of(0);
      case 'b':
        if (in_class) return CharSet::of('\b');
        break;
      case '-':
        if (in_class) return CharSet::of('-');
        break;
      default:
        break;
    }
    if (c >= '1' && c <= '9') fail("a backreference, which is not supported");
    if (c < 0x80 && std::u32string_view(U"^$\\.*+?()[]{}|/").find(c) != std::u32string_view::npos)
      return CharSet::of(c);
    fail("the escape \\" + utf8_of({&c, 1}) + ", which has no meaning");
  }
  CharSet property(bool negated) {
    if (!take(U'{')) fail("\\p without {name}");
    std::string name;
    while (!done() && peek() != '}') name += utf8_of({&text_[next_++], 1});
    if (!take(U'}')) fail("\\p without {name}");
    CharSet set;
    if (!unicode_class(name, set))
      fail("the property \\p{" + name.substr(0, 40) + "}; supported are general categories, Any, ASCII and Assigned");
    return negated ? set.complement() : set;
  }

  /// After the [.
  CharSet char_class() {
    const bool negated = take(U'^');
    CharSet set;
    while (!take(U']')) {
      if (done()) fail("a [ without its ]");
      const CharSet low = class_atom();
      if (peek() != '-' || peek(1) == ']' || next_ + 1 >= text_.size()) {
        set.add(low);
        continue;
      }
      next_++;
      const CharSet high = class_atom();
      const auto single = [](const CharSet& s) {
        return s.ranges().size() == 1 && s.ranges()[0].low == s.ranges()[0].high;
      };
      if (!single(low) || !single(high)) fail("a range between classes");
      if (low.ranges()[0].low > high.ranges()[0].low) fail("a range that is out of order");
      set.add(low.ranges()[0].low, high.ranges()[0].low);
    }
    return negated ? set.complement() : set;
  }
  CharSet class_atom() {
    if (done()) fail("a [ without its ]");
    if (take(U'\\')) return escape(true);
    return CharSet::of(text_[next_++]);
  }

  std::u32string text_;
  const std::string& at_;
  size_t next_ = 0;
  int depth_ = 0;
  RegexSyntax out_;
};

}  // namespace

RegexSyntax parse_regex_syntax(std::string_view pattern, const std::string& at) { return Parser(pattern, at).parse(); }

}  // namespace sdar::form
