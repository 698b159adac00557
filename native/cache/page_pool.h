// Who holds which KV page. Bookkeeping only: the bytes of a page belong to the backend. Page layout: ops/segment.h.
// A page is free, active (held by block tables) or cached (held by nobody, but its contents can be found again).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "cache/prefix_index.h"

namespace sdar {

/// A fixed number of pages. Free ones are handed out last freed first, so that memory touched once is used again; when
/// they run out, cached ones are evicted, least recently used first, a page always after those that continue it.
class PagePool {
 public:
  /// With `keep`, pages that nobody holds stay in the prefix index until they are needed; else they leave it.
  explicit PagePool(int32_t pages, bool keep = true);

  /// Appends `count` pages to `table`, or changes nothing and returns false when fewer are free or cached.
  bool take(int32_t count, std::vector<int32_t>& table);
  /// Gives up all pages of `table` and empties it. Throws Error(INTERNAL) for a page that is not in use.
  void release(std::vector<int32_t>& table);

  /// Appends the pages that hold the longest known prefix of `tokens` in pages of `per_page`; they are held like taken
  /// ones. Returns how many. `table` is empty before.
  int32_t match(const PrefixRoot& root, std::span<const int32_t> tokens, int32_t per_page, std::vector<int32_t>& table);
  /// How many of those pages match() would find; `cached` of them are held by nobody now.
  int32_t count_matches(const PrefixRoot& root, std::span<const int32_t> tokens, int32_t per_page,
                        int32_t& cached) const;
  /// Page table[i] is full and final and holds `tokens`, and all before it have been shared: enters it into the index.
  /// Where the same contents are known already, the table takes that page instead and releases its own.
  void index_page(const PrefixRoot& root, std::vector<int32_t>& table, size_t i, std::span<const int32_t> tokens);
  /// Evicted only when nothing else is left to evict, until then.
  void pin(int32_t page);

  int32_t total() const { return static_cast<int32_t>(pages_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t cached() const { return plain_.size + pinned_.size; }
  int32_t available() const { return free() + cached(); }
  int32_t active() const { return total() - available(); }
  int32_t pinned() const { return pins_; }
  int64_t evictions() const { return evictions_; }
  /// How many block tables hold a page.
  int32_t holders(int32_t page) const { return pages_[page].holders; }
  const PrefixIndex& index() const { return index_; }

 private:
  struct Page {
    int32_t holders = 0;
    int32_t before = -1, after = -1;  ///< neighbours among cached pages
    bool pinned = false;
  };
  /// Cached pages, least recently used first.
  struct Queue {
    int32_t first = -1, last = -1, size = 0;
  };

  Queue& queue_of(int32_t page) { return pages_[page].pinned ? pinned_ : plain_; }
  void append(Queue& queue, int32_t page);
  void remove(Queue& queue, int32_t page);
  void hold(int32_t page);
  void give_up(int32_t page);
  void evict();

  std::vector<Page> pages_;
  std::vector<int32_t> free_;
  PrefixIndex index_;
  Queue plain_, pinned_;
  bool keep_;
  int32_t pins_ = 0;
  int64_t evictions_ = 0;
};

/// Pages that `tokens` positions take with block length `block_length`.
int32_t pages_for(int32_t tokens, int32_t block_length);

}  // namespace sdar
