// Which KV pages are free. Bookkeeping only: the bytes of a page belong to the backend. Page layout: ops/segment.h.
#pragma once
#include <cstdint>
#include <vector>

namespace sdar {

/// A fixed number of pages, handed out last freed first so that memory touched once is used again.
class PagePool {
 public:
  explicit PagePool(int32_t pages);

  /// Appends `count` pages to `table`, or changes nothing and returns false when fewer are free.
  bool take(int32_t count, std::vector<int32_t>& table);
  /// Returns all pages of `table` and empties it. Throws Error(INTERNAL) for a page that is not in use.
  void release(std::vector<int32_t>& table);

  int32_t total() const { return static_cast<int32_t>(used_.size()); }
  int32_t available() const { return static_cast<int32_t>(free_.size()); }
  int32_t active() const { return total() - available(); }

 private:
  std::vector<int32_t> free_;
  std::vector<bool> used_;
};

/// Pages that `tokens` positions take with block length `block_length`.
int32_t pages_for(int32_t tokens, int32_t block_length);

}  // namespace sdar
