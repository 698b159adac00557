#include <algorithm>

#include "form/program.h"
#include "util/error.h"

namespace sdar::form {

uint32_t Builder::state() {
  if (states_ == kMaxStates)
    throw Error(code::kInvalidOption, at_ + ": the form needs more than " + std::to_string(kMaxStates) +
                                          " states; lower its repetitions, lengths and numbers of items");
  return static_cast<uint32_t>(states_++);
}

uint32_t Builder::rule(std::string name) {
  const uint32_t start = state();
  rules_.push_back({.name = std::move(name), .start = start, .accept = state()});
  return static_cast<uint32_t>(rules_.size() - 1);
}

void Builder::add(std::vector<Edge>& edges, Edge edge) {
  if (bytes_.size() + calls_.size() + empties_.size() == kMaxEdges)
    throw Error(code::kInvalidOption, at_ + ": the form needs more than " + std::to_string(kMaxEdges) +
                                          " transitions; lower its repetitions, lengths and numbers of items");
  edges.push_back(edge);
}

void Builder::bytes(uint32_t from, uint8_t low, uint8_t high, uint32_t to) {
  add(bytes_, {from, to, static_cast<uint32_t>(low | high << 8)});
}

void Builder::empty(uint32_t from, uint32_t to) {
  if (from != to) add(empties_, {from, to, 0});
}

void Builder::call(uint32_t from, uint32_t rule, uint32_t to) { add(calls_, {from, to, rule}); }

void Builder::text(uint32_t from, std::string_view text, uint32_t to) {
  if (text.empty()) return empty(from, to);
  for (size_t i = 0; i < text.size(); i++) {
    const uint32_t next = i + 1 == text.size() ? to : state();
    bytes(from, static_cast<uint8_t>(text[i]), static_cast<uint8_t>(text[i]), next);
    from = next;
  }
}

void Builder::texts(uint32_t from, std::vector<std::string>& texts, uint32_t to) {
  std::sort(texts.begin(), texts.end());
  std::vector<uint32_t> path{from};  // states of the last text's prefixes
  std::string_view last;
  for (const std::string& text : texts) {
    size_t same = 0;
    while (same < last.size() && same < text.size() && last[same] == text[same]) same++;
    path.resize(same + 1);
    for (size_t i = same; i < text.size(); i++) {
      path.push_back(state());
      bytes(path[i], static_cast<uint8_t>(text[i]), static_cast<uint8_t>(text[i]), path[i + 1]);
    }
    empty(path.back(), to);
    last = text;
  }
}

namespace {

/// What follows a lead byte: ranges of continuation bytes. Sequences of UTF-8 as in table 3-7 of the Unicode standard.
struct Sequence {
  int length;
  uint8_t low[4], high[4];
};

void encode(char32_t c, int length, uint8_t* out) {
  for (int i = length - 1; i > 0; i--, c >>= 6) out[i] = static_cast<uint8_t>(0x80 | (c & 0x3f));
  out[0] = static_cast<uint8_t>(length == 2 ? 0xc0 | c : length == 3 ? 0xe0 | c : 0xf0 | c);
}

/// Splits until only the ranges of bytes vary (Russ Cox, "Regular Expression Matching in the Wild", 2010).
void split(char32_t low, char32_t high, int length, std::vector<Sequence>& out) {
  for (int tail = 1; tail < length; tail++) {
    const char32_t mask = (char32_t{1} << 6 * tail) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if (low & mask) {
      split(low, low | mask, length, out);
      return split((low | mask) + 1, high, length, out);
    }
    if ((high & mask) != mask) {
      split(low, (high & ~mask) - 1, length, out);
      return split(high & ~mask, high, length, out);
    }
  }
  Sequence s{.length = length, .low = {}, .high = {}};
  encode(low, length, s.low);
  encode(high, length, s.high);
  out.push_back(s);
}

}  // namespace

void Builder::utf8(uint32_t from, const CharSet& set, uint32_t to) {
  static constexpr CharSet::Range kLengths[] = {
      {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, kLastCodePoint}};
  std::vector<Sequence> sequences;
  for (const auto& r : set.ranges()) {
    if (r.low < 0x80)
      bytes(from, static_cast<uint8_t>(r.low), static_cast<uint8_t>(std::min<char32_t>(r.high, 0x7f)), to);
    for (const auto& part : kLengths) {
      const char32_t low = std::max(r.low, part.low), high = std::min(r.high, part.high);
      if (low <= high) split(low, high, part.high <= 0x7ff ? 2 : part.high <= 0xffff ? 3 : 4, sequences);
    }
  }
  // Equal ends that lead to the same state share theirs, whichever state they come from.
  for (const Sequence& s : sequences) {
    uint32_t next = to;
    uint64_t key = 0;
    for (int i = s.length - 1; i > 0; i--) {
      key = key << 16 | static_cast<uint64_t>(s.low[i]) << 8 | s.high[i];
      const auto [at, added] = ends_.try_emplace({to, key}, 0);
      if (added) {
        const uint32_t made = state();
        bytes(made, s.low[i], s.high[i], next);
        at->second = made;
      }
      next = at->second;
    }
    bytes(from, s.low[0], s.high[0], next);
  }
}

void Builder::escapes(uint32_t from, const CharSet& set, uint32_t to) {
  static constexpr std::pair<char, char> kShort[] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                                     {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};
  constexpr char kDigits[] = "0123456789abcdef";
  const auto byte = [&](uint32_t a, char c, uint32_t b) {
    bytes(a, static_cast<uint8_t>(c), static_cast<uint8_t>(c), b);
  };
  const CharSet escaped = set.intersect({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}});
  if (escaped.empty()) return;
  uint64_t key = uint64_t{1} << 63;  // no end of UTF-8 has it; then a bit for each character
  for (const auto& r : escaped.ranges())
    for (char32_t c = r.low; c <= r.high; c++) key |= uint64_t{1} << (c == '"' ? 32 : c == '\\' ? 33 : c);
  const auto known = ends_.find({to, key});
  if (known != ends_.end()) return byte(from, '\\', known->second);
  const uint32_t after = ends_[{to, key}] = state();
  byte(from, '\\', after);
  CharSet rest = escaped.intersect({{0, 0x1f}});
  for (const auto& [c, letter] : kShort) {
    const auto point = static_cast<unsigned char>(c);
    if (!escaped.contains(point)) continue;
    byte(after, letter, to);
    rest = rest.without(CharSet::of(point));
  }
  if (rest.empty()) return;
  const uint32_t unicode = state();
  text(after, "u00", unicode);
  for (char32_t high = 0; high < 2; high++) {
    const CharSet row = rest.intersect({{high * 16, high * 16 + 15}});
    if (row.empty()) continue;
    const uint32_t digit = state();
    byte(unicode, kDigits[high], digit);
    for (const auto& r : row.ranges())
      for (char32_t c = r.low; c <= r.high; c++) byte(digit, kDigits[c & 15], to);
  }
}

void Builder::chars(uint32_t from, const CharSet& set, uint32_t to, Encoding encoding) {
  if (encoding == Encoding::kUtf8) return utf8(from, set, to);
  escapes(from, set, to);
  utf8(from, set.without({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}), to);
}

}  // namespace sdar::form
