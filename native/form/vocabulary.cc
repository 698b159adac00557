#include "form/vocabulary.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "util/error.h"

namespace sdar::form {
namespace {

constexpr size_t kMostRests = 32;
constexpr size_t kMostSpelled = 256;  // masks that are kept; 5 MB for 151,936 ids

/// Length of the character that begins here; 0 when the bytes are not valid UTF-8 or end within it.
size_t character(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; };
  const int lead = at(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  const int low = lead == 0xe0   ? 0xa0
                  : lead == 0xf0 ? 0x90
                                 : 0x80,
            high = lead == 0xed   ? 0x9f
                   : lead == 0xf4 ? 0x8f
                                  : 0xbf;
  if (at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < length; i++)
    if ((at(i) & 0xc0) != 0x80) return 0;
  return length;
}

Vocabulary::Summary summary_of(std::string_view text) {
  Vocabulary::Summary s{{}, 0};
  while (!text.empty()) {
    const size_t length = character(text);
    const auto lead = static_cast<uint8_t>(text[0]);
    if (length == 0 || lead == 0x7f || s.characters + 1 == Vocabulary::kNotWhole) return {{}, Vocabulary::kNotWhole};
    s.alphabet.add(length == 1 ? lead : Alphabet::kOther);
    s.characters++;
    text.remove_prefix(length);
  }
  return s;
}

}  // namespace

bool whole_characters(std::string_view text) {
  while (!text.empty()) {
    const size_t length = character(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

uint32_t Vocabulary::child(uint32_t node, uint8_t byte) const {
  const uint32_t end = nodes_[node].end;
  uint32_t at = node + 1;
  while (at < end && nodes_[at].byte != byte) at = nodes_[at].end;
  return at < end ? at : 0;
}

size_t Alphabet::size() const { return static_cast<size_t>(std::popcount(low) + std::popcount(high)); }

Vocabulary::Vocabulary(std::string bytes, std::vector<uint32_t> offsets, std::span<const int32_t> end_ids, int32_t size)
    : bytes_(std::move(bytes)), offsets_(std::move(offsets)), end_ids_(end_ids.begin(), end_ids.end()), size_(size) {
  const size_t tokens = offsets_.empty() ? 0 : offsets_.size() - 1;
  if (offsets_.empty() || size < 0 || tokens > static_cast<size_t>(size) || offsets_.back() > bytes_.size() ||
      !std::is_sorted(offsets_.begin(), offsets_.end()))
    throw Error(code::kInvalidOption,
                "the token table's offsets must ascend, end within its bytes, and be of at most " +
                    std::to_string(size) + " tokens");
  for (const int32_t id : end_ids_)
    if (id < 0 || id >= size)
      throw Error(code::kInvalidOption, "end id " + std::to_string(id) + " is not below " + std::to_string(size));
  tokens_.resize(tokens, {{}, kNotWhole});
  for (size_t i = 0; i < tokens; i++) {
    const auto id = static_cast<int32_t>(i);
    const std::string_view text = this->bytes(id);
    if (text.size() >= UINT16_MAX)
      throw Error(code::kInvalidOption,
                  "token " + std::to_string(id) + " has " + std::to_string(text.size()) + " bytes");
    if (text.empty()) continue;
    tokens_[i] = summary_of(text);
    longest_ = std::max(longest_, static_cast<uint16_t>(text.size()));
    ids_.push_back(id);
  }
  std::ranges::stable_sort(ids_, {}, [&](int32_t id) { return this->bytes(id); });
  add_node(0, ids_.size(), 0, 0);
  for (const int32_t id : ids_)
    if (tokens_[static_cast<size_t>(id)].characters != kNotWhole) by_length_.push_back(id);
  std::ranges::sort(by_length_, std::greater<>(),
                    [&](int32_t id) { return tokens_[static_cast<size_t>(id)].characters; });
  for (uint32_t i = 1; i < nodes_.size(); i = nodes_[i].end) children_[nodes_[i].byte] = i;
}

std::string_view Vocabulary::bytes(int32_t id) const {
  const auto i = static_cast<size_t>(id);
  if (i + 1 >= offsets_.size() || std::ranges::find(end_ids_, id) != end_ids_.end()) return {};
  return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
}

/// The node of the tokens [from, to) of ids_, which share their first `depth` bytes, and its subtree. Iterative: a token may
/// have 65,534 bytes.
void Vocabulary::add_node(size_t from, size_t to, uint16_t depth, uint8_t byte) {
  struct Open {
    size_t node, at, to;
  };
  std::vector<Open> stack;
  const auto open = [&](size_t first, size_t last, uint16_t at_depth, uint8_t b) {
    stack.push_back({nodes_.size(), first, last});
    nodes_.push_back({0, static_cast<uint32_t>(first), static_cast<uint32_t>(first), at_depth, b});
    summaries_.push_back({{}, 0});
    Open& top = stack.back();
    for (; top.at < last && bytes(ids_[top.at]).size() == at_depth; top.at++) {
      const Summary& token = tokens_[static_cast<size_t>(ids_[top.at])];
      Summary& s = summaries_.back();
      s.alphabet.low |= token.alphabet.low, s.alphabet.high |= token.alphabet.high;
      s.characters = std::max(s.characters, token.characters);
    }
    nodes_.back().last = static_cast<uint32_t>(top.at);
  };
  open(from, to, depth, byte);
  while (!stack.empty()) {
    Open& top = stack.back();
    const size_t node = top.node;
    if (top.at == top.to) {
      nodes_[node].end = static_cast<uint32_t>(nodes_.size());
      stack.pop_back();
      if (stack.empty()) break;
      Summary& parent = summaries_[stack.back().node];
      parent.alphabet.low |= summaries_[node].alphabet.low, parent.alphabet.high |= summaries_[node].alphabet.high;
      parent.characters = std::max(parent.characters, summaries_[node].characters);
      continue;
    }
    const uint16_t child_depth = nodes_[node].depth;
    const size_t first = top.at;
    const char c = bytes(ids_[first])[child_depth];
    while (top.at < top.to && bytes(ids_[top.at])[child_depth] == c) top.at++;
    open(first, top.at, static_cast<uint16_t>(child_depth + 1), static_cast<uint8_t>(c));
  }
}

std::shared_ptr<const Mask> Vocabulary::spelled(const Alphabet& alphabet, uint16_t characters) const {
  characters = std::min(characters, kAnyNumber);
  const std::lock_guard lock(mutex_);
  const auto key = std::make_pair(alphabet, characters);
  if (const auto at = spelled_.find(key); at != spelled_.end()) return at->second;
  auto& whole = spelled_[{alphabet, kAnyNumber}];
  if (!whole) {
    auto mask = std::make_shared<Mask>((static_cast<size_t>(size_) + 63) / 64);
    // In the order of ids, a word of the mask at a time: all of it is read from memory.
    for (size_t word = 0; word * 64 < tokens_.size(); word++) {
      uint64_t bits = 0;
      const size_t end = std::min(tokens_.size(), word * 64 + 64);
      for (size_t i = word * 64; i < end; i++) {
        const Summary& token = tokens_[i];
        const bool covered = token.characters != kNotWhole && alphabet.covers(token.alphabet);
        bits |= uint64_t{covered} << (i & 63);
      }
      (*mask)[word] = bits;
    }
    whole = std::move(mask);
  }
  if (characters == kAnyNumber) return whole;
  auto mask = std::make_shared<Mask>(*whole);
  for (const int32_t id : by_length_) {
    if (tokens_[static_cast<size_t>(id)].characters <= characters) break;
    (*mask)[static_cast<size_t>(id) >> 6] &= ~(uint64_t{1} << (id & 63));
  }
  if (spelled_.size() >= kMostSpelled) spelled_.clear();
  return spelled_[key] = std::move(mask);
}

std::shared_ptr<const Vocabulary::Rest> Vocabulary::rest(const Alphabet& alphabet, uint16_t characters) const {
  const std::lock_guard lock(mutex_);
  const auto key = std::make_pair(alphabet, characters);
  if (const auto at = rests_.find(key); at != rests_.end()) return at->second;
  auto rest = std::make_shared<Rest>();
  std::vector<size_t> open;  // nodes of the rest whose subtree goes on
  const auto close = [&](uint32_t until) {
    while (!open.empty() && nodes_[rest->origin[open.back()]].end <= until) {
      rest->nodes[open.back()].end = static_cast<uint32_t>(rest->nodes.size());
      open.pop_back();
    }
  };
  for (uint32_t i = 0; i < nodes_.size();) {
    close(i);
    if (summaries_[i].characters <= characters && alphabet.covers(summaries_[i].alphabet)) {
      i = nodes_[i].end;
      continue;
    }
    open.push_back(rest->nodes.size());
    rest->nodes.push_back(nodes_[i]);
    rest->origin.push_back(i);
    i++;
  }
  close(static_cast<uint32_t>(nodes_.size()));
  if (rests_.size() >= kMostRests) rests_.clear();
  return rests_[key] = std::move(rest);
}

}  // namespace sdar::form
