// Which page holds which tokens behind which prefix: a tree of full pages, found by hash, compared by content. Knows no
// references and no memory; PagePool decides what stays.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace sdar {

/// Where a chain begins: keys and values depend on the block length; a salt keeps tenants apart.
struct PrefixRoot {
  int32_t block_length = 1;
  std::string salt = {};
};

class PrefixIndex {
 public:
  static constexpr int32_t kNone = -1;

  explicit PrefixIndex(int32_t pages);

  /// Page behind `parent` (kNone: the root) that holds exactly `tokens`, or kNone.
  int32_t find(const PrefixRoot& root, int32_t parent, std::span<const int32_t> tokens) const;
  /// Enters `page` as the one that holds `tokens` behind `parent`. Neither may be entered twice. Strong guarantee.
  void insert(const PrefixRoot& root, int32_t parent, std::span<const int32_t> tokens, int32_t page);
  /// Takes a page out. Throws Error(INTERNAL) for one with pages behind it: these would never be found again.
  void erase(int32_t page);

  bool contains(int32_t page) const { return entries_[page].node != 0; }
  int32_t children(int32_t page) const { return entries_[page].children; }
  int32_t size() const { return size_; }

 private:
  /// A node is a root or a page as it was entered: a number that is never used again, so that a child can never be
  /// found behind another page that took its parent's place.
  using Node = uint64_t;
  struct Entry {
    Node node = 0;  ///< 0: not entered
    Node parent = 0;
    uint64_t hash = 0;
    int32_t parent_page = kNone;
    int32_t children = 0;
    std::vector<int32_t> tokens;
  };
  struct Root {
    Node node = 0;
    int32_t children = 0;
  };

  static std::string key_of(const PrefixRoot& root);
  /// 0 when there is none.
  Node node_of(const PrefixRoot& root, int32_t parent) const;
  uint64_t hash(Node parent, std::span<const int32_t> tokens) const;
  int32_t find(Node parent, uint64_t hash, std::span<const int32_t> tokens) const;

  std::vector<Entry> entries_;  // by page
  std::unordered_multimap<uint64_t, int32_t> by_hash_;
  std::unordered_map<std::string, Root> roots_;
  std::unordered_map<Node, std::string> root_keys_;
  Node next_node_ = 1;
  int32_t size_ = 0;
  uint64_t seed_;  // callers must not be able to choose tokens that collide
};

}  // namespace sdar
