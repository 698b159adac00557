#include "cache/page_pool.h"

#include "backend/step.h"
#include "util/error.h"

namespace sdar {

PagePool::PagePool(int32_t pages, bool keep) : pages_(pages), index_(pages), keep_(keep) {
  free_.reserve(pages);
  for (int32_t page = pages - 1; page >= 0; page--) free_.push_back(page);
}

bool PagePool::take(int32_t count, std::vector<int32_t>& table) {
  if (count > available()) return false;
  table.reserve(table.size() + count);
  for (int32_t i = 0; i < count; i++) {
    if (free_.empty()) evict();
    const int32_t page = free_.back();
    free_.pop_back();
    pages_[page].holders = 1;
    table.push_back(page);
  }
  return true;
}

void PagePool::release(std::vector<int32_t>& table) {
  for (int32_t page : table) {
    if (page < 0 || page >= total() || pages_[page].holders == 0)
      throw Error(code::kInternal, "KV page " + std::to_string(page) + " was released but is not in use");
  }
  // Deepest first: a page becomes evictable before the one that it continues.
  for (; !table.empty(); table.pop_back()) give_up(table.back());
}

int32_t PagePool::match(const PrefixRoot& root, std::span<const int32_t> tokens, int32_t per_page,
                        std::vector<int32_t>& table) {
  table.reserve(tokens.size() / per_page);
  int32_t parent = PrefixIndex::kNone;
  for (size_t at = 0; at + per_page <= tokens.size(); at += per_page) {
    const int32_t page = index_.find(root, parent, tokens.subspan(at, per_page));
    if (page == PrefixIndex::kNone) break;
    hold(page);
    table.push_back(page);
    parent = page;
  }
  return static_cast<int32_t>(table.size());
}

int32_t PagePool::count_matches(const PrefixRoot& root, std::span<const int32_t> tokens, int32_t per_page,
                                int32_t& cached) const {
  int32_t count = 0, parent = PrefixIndex::kNone;
  cached = 0;
  for (size_t at = 0; at + per_page <= tokens.size(); at += per_page) {
    const int32_t page = index_.find(root, parent, tokens.subspan(at, per_page));
    if (page == PrefixIndex::kNone) break;
    count++;
    cached += pages_[page].holders == 0;
    parent = page;
  }
  return count;
}

void PagePool::index_page(const PrefixRoot& root, std::vector<int32_t>& table, size_t i,
                          std::span<const int32_t> tokens) {
  const int32_t parent = i == 0 ? PrefixIndex::kNone : table[i - 1];
  const int32_t known = index_.find(root, parent, tokens);
  if (known == table[i]) return;
  if (known == PrefixIndex::kNone) return index_.insert(root, parent, tokens, table[i]);
  hold(known);
  give_up(table[i]);
  table[i] = known;
}

void PagePool::pin(int32_t page) {
  Page& p = pages_[page];
  if (p.pinned || !index_.contains(page)) return;
  const bool cached = p.holders == 0;
  if (cached) remove(plain_, page);
  p.pinned = true;
  pins_++;
  if (cached) append(pinned_, page);
}

void PagePool::append(Queue& queue, int32_t page) {
  pages_[page].before = queue.last;
  pages_[page].after = -1;
  (queue.last < 0 ? queue.first : pages_[queue.last].after) = page;
  queue.last = page;
  queue.size++;
}

void PagePool::remove(Queue& queue, int32_t page) {
  const Page& p = pages_[page];
  (p.before < 0 ? queue.first : pages_[p.before].after) = p.after;
  (p.after < 0 ? queue.last : pages_[p.after].before) = p.before;
  queue.size--;
}

void PagePool::hold(int32_t page) {
  if (pages_[page].holders++ == 0) remove(queue_of(page), page);
}

void PagePool::give_up(int32_t page) {
  Page& p = pages_[page];
  if (--p.holders > 0) return;
  if (index_.contains(page)) {
    if (keep_) return append(queue_of(page), page);
    index_.erase(page);
  }
  if (p.pinned) p.pinned = false, pins_--;
  free_.push_back(page);
}

void PagePool::evict() {
  Queue& queue = plain_.size > 0 ? plain_ : pinned_;
  const int32_t page = queue.first;
  remove(queue, page);
  index_.erase(page);
  if (pages_[page].pinned) pages_[page].pinned = false, pins_--;
  free_.push_back(page);
  evictions_++;
}

int32_t pages_for(int32_t tokens, int32_t block_length) {
  const int32_t per_page = tokens_per_page(block_length);
  return (tokens + per_page - 1) / per_page;
}

}  // namespace sdar
