#include "cache/prefix_index.h"

#include <algorithm>
#include <random>

#include "util/error.h"

namespace sdar {

PrefixIndex::PrefixIndex(int32_t pages) : entries_(pages) {
  std::random_device device;
  seed_ = uint64_t{device()} << 32 | device();
  by_hash_.reserve(pages);
}

std::string PrefixIndex::key_of(const PrefixRoot& root) { return std::to_string(root.block_length) + ":" + root.salt; }

PrefixIndex::Node PrefixIndex::node_of(const PrefixRoot& root, int32_t parent) const {
  if (parent != kNone) return entries_[parent].node;
  const auto it = roots_.find(key_of(root));
  return it == roots_.end() ? 0 : it->second.node;
}

uint64_t PrefixIndex::hash(Node parent, std::span<const int32_t> tokens) const {
  const auto mix = [](uint64_t x) {  // splitmix64's finaliser
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
  };
  uint64_t h = mix(seed_ + parent);
  for (int32_t token : tokens) h = mix(h + static_cast<uint32_t>(token) + seed_);
  return h;
}

int32_t PrefixIndex::find(Node parent, uint64_t hash, std::span<const int32_t> tokens) const {
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const Entry& entry = entries_[it->second];
    if (entry.parent == parent && std::ranges::equal(entry.tokens, tokens)) return it->second;
  }
  return kNone;
}

int32_t PrefixIndex::find(const PrefixRoot& root, int32_t parent, std::span<const int32_t> tokens) const {
  const Node node = node_of(root, parent);
  return node == 0 ? kNone : find(node, hash(node, tokens), tokens);
}

void PrefixIndex::insert(const PrefixRoot& root, int32_t parent, std::span<const int32_t> tokens, int32_t page) {
  if (contains(page) || (parent != kNone && !contains(parent)))
    throw Error(code::kInternal, "KV page " + std::to_string(page) + " cannot be entered into the prefix index");
  std::vector<int32_t> copy(tokens.begin(), tokens.end());
  Node node = node_of(root, parent);
  const bool new_root = node == 0;
  if (new_root) node = next_node_++;
  const uint64_t h = hash(node, tokens);
  const auto entered = by_hash_.emplace(h, page);
  if (parent == kNone) {
    std::string key;
    try {
      key = key_of(root);
      if (new_root) root_keys_.emplace(node, key);
      roots_[key].node = node;
    } catch (...) {
      by_hash_.erase(entered);
      root_keys_.erase(new_root ? node : 0);
      throw;
    }
    roots_.find(key)->second.children++;
  } else {
    entries_[parent].children++;
  }
  entries_[page] = {
      .node = next_node_++, .parent = node, .hash = h, .parent_page = parent, .children = 0, .tokens = std::move(copy)};
  size_++;
}

void PrefixIndex::erase(int32_t page) {
  Entry& entry = entries_[page];
  if (entry.node == 0 || entry.children > 0)
    throw Error(code::kInternal, "KV page " + std::to_string(page) + " cannot be taken out of the prefix index");
  const auto [first, last] = by_hash_.equal_range(entry.hash);
  for (auto it = first; it != last; ++it) {
    if (it->second != page) continue;
    by_hash_.erase(it);
    break;
  }
  if (entry.parent_page != kNone) {
    entries_[entry.parent_page].children--;
  } else {
    const auto key = root_keys_.find(entry.parent);
    const auto root = roots_.find(key->second);
    if (--root->second.children == 0) {
      roots_.erase(root);
      root_keys_.erase(key);
    }
  }
  entry = {};
  size_--;
}

}  // namespace sdar
