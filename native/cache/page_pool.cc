#include "cache/page_pool.h"

#include "ops/segment.h"
#include "util/error.h"

namespace sdar {

PagePool::PagePool(int32_t pages) : used_(pages, false) {
  free_.reserve(pages);
  for (int32_t page = pages - 1; page >= 0; page--) free_.push_back(page);
}

bool PagePool::take(int32_t count, std::vector<int32_t>& table) {
  if (count > available()) return false;
  table.reserve(table.size() + count);
  for (int32_t i = 0; i < count; i++) {
    const int32_t page = free_.back();
    free_.pop_back();
    used_[page] = true;
    table.push_back(page);
  }
  return true;
}

void PagePool::release(std::vector<int32_t>& table) {
  for (size_t i = table.size(); i-- > 0;) {
    const int32_t page = table[i];
    if (page < 0 || page >= total() || !used_[page])
      throw Error(code::kInternal, "KV page " + std::to_string(page) + " was released but is not in use");
    used_[page] = false;
    free_.push_back(page);
  }
  table.clear();
}

int32_t pages_for(int32_t tokens, int32_t block_length) {
  const int32_t per_page = tokens_per_page(block_length);
  return (tokens + per_page - 1) / per_page;
}

}  // namespace sdar
