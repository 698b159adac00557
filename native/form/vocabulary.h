// The token table as a trie, in preorder: a node's subtree is a range, so that a walk is a loop over an array.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sdar::form {

/// A bit for each id, ascending.
using Mask = std::vector<uint64_t>;

inline bool has(const Mask& mask, int32_t id) { return mask[static_cast<size_t>(id) >> 6] >> (id & 63) & 1; }

/// Characters that some text consists of: a bit for each ASCII character but DEL, and one for all others.
struct Alphabet {
  uint64_t low = 0, high = 0;

  static constexpr int kOther = 127;
  void add(int c) { (c < 64 ? low : high) |= uint64_t{1} << (c & 63); }
  bool contains(int c) const { return (c < 64 ? low : high) >> (c & 63) & 1; }
  bool covers(const Alphabet& other) const { return ((other.low & ~low) | (other.high & ~high)) == 0; }
  size_t size() const;
  auto operator<=>(const Alphabet&) const = default;
};

/// Whether a text is whole characters of UTF-8.
bool whole_characters(std::string_view text);

class Vocabulary {
 public:
  static constexpr uint16_t kNotWhole = UINT16_MAX;
  static constexpr uint16_t kAnyNumber = UINT16_MAX - 1;  ///< of characters

  struct Node {
    uint32_t end;          ///< one past the last node of its subtree
    uint32_t first, last;  ///< of ids(): the node's own tokens are [first, last)
    uint16_t depth;        ///< bytes from the root, which is node 0
    uint8_t byte;
  };
  /// What the tokens of a node's subtree consist of, from their first bytes on.
  struct Summary {
    Alphabet alphabet;
    uint16_t characters;  ///< of the longest; kNotWhole when one of them is not whole characters
  };

  /// Bytes of token i are bytes[offsets[i] … offsets[i + 1]); tokens without bytes are never allowed. `end_ids` may
  /// follow a whole text and have no bytes here, whatever the table says. `size` is that of the masks, at least the
  /// table's number of tokens. Throws Error(INVALID_OPTION).
  Vocabulary(std::string bytes, std::vector<uint32_t> offsets, std::span<const int32_t> end_ids, int32_t size);

  int32_t size() const { return size_; }
  std::string_view bytes(int32_t id) const;
  const std::vector<int32_t>& end_ids() const { return end_ids_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  /// The root's child of this byte; 0 when it has none.
  uint32_t child(uint8_t byte) const { return children_[byte]; }
  /// Any other node's.
  uint32_t child(uint32_t node, uint8_t byte) const;
  const std::vector<Summary>& summaries() const { return summaries_; }
  const std::vector<int32_t>& ids() const { return ids_; }  ///< by their bytes
  uint16_t longest() const { return longest_; }             ///< bytes

  /// The tokens of at most `characters` characters of this alphabet. Kept; may be called by several threads.
  std::shared_ptr<const Mask> spelled(const Alphabet& alphabet, uint16_t characters) const;

  /// The trie without the tokens that spelled() has. Nodes know which of nodes() they are.
  struct Rest {
    std::vector<Node> nodes;
    std::vector<uint32_t> origin;
  };
  std::shared_ptr<const Rest> rest(const Alphabet& alphabet, uint16_t characters) const;

 private:
  void add_node(size_t from, size_t to, uint16_t depth, uint8_t byte);

  std::string bytes_;
  std::vector<uint32_t> offsets_;
  std::vector<int32_t> end_ids_;
  int32_t size_;
  std::vector<Node> nodes_;
  std::vector<Summary> summaries_;
  std::vector<Summary> tokens_;  ///< of each id's token alone
  std::vector<int32_t> ids_;
  std::vector<int32_t> by_length_;  ///< those of whole characters, the longest first
  uint16_t longest_ = 0;
  mutable std::mutex mutex_;
  std::array<uint32_t, 256> children_{};
  mutable std::map<std::pair<Alphabet, uint16_t>, std::shared_ptr<const Mask>> spelled_;
  mutable std::map<std::pair<Alphabet, uint16_t>, std::shared_ptr<const Rest>> rests_;
};

}  // namespace sdar::form
