// The page pool and the prefix index against a simple model: what every page holds, who holds it, what is known.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backend/step.h"
#include "cache/page_pool.h"
#include "check.h"

using sdar::PagePool;
using sdar::PrefixRoot;
using Tokens = std::vector<int32_t>;

namespace {

constexpr int32_t kPerPage = 4;

/// Takes what is not known of `tokens`, enters all full pages, and returns the table.
std::vector<int32_t> store(PagePool& pool, const PrefixRoot& root, const Tokens& tokens) {
  std::vector<int32_t> table;
  const int32_t found = pool.match(root, tokens, kPerPage, table);
  const int32_t full = static_cast<int32_t>(tokens.size()) / kPerPage;
  CHECK(pool.take(full - found, table));
  for (int32_t i = found; i < full; i++)
    pool.index_page(root, table, i, std::span(tokens).subspan(i * kPerPage, kPerPage));
  return table;
}

int32_t known(const PagePool& pool, const PrefixRoot& root, const Tokens& tokens) {
  int32_t cached = 0;
  return pool.count_matches(root, tokens, kPerPage, cached);
}

Tokens counting(int from, int count) {
  Tokens tokens;
  for (int i = 0; i < count; i++) tokens.push_back(from + i);
  return tokens;
}

}  // namespace

TEST("pages hold whole blocks") {
  CHECK(sdar::tokens_per_page(3) == 63);
  CHECK(sdar::tokens_per_page(64) == 64);
  CHECK(sdar::pages_for(63, 3) == 1);
  CHECK(sdar::pages_for(64, 3) == 2);
  CHECK(sdar::pages_for(0, 4) == 0);
}

TEST("taking more than is free changes nothing") {
  PagePool pool(3);
  std::vector<int32_t> table;
  CHECK(pool.take(2, table));
  CHECK(!pool.take(2, table));
  CHECK(table.size() == 2 && pool.available() == 1 && pool.active() == 2);
}

TEST("a page released twice is refused, and nothing is released then") {
  PagePool pool(2);
  std::vector<int32_t> table;
  pool.take(1, table);
  std::vector<int32_t> again = table;
  pool.release(table);
  CHECK_THROWS(sdar::code::kInternal, "not in use", pool.release(again));
  std::vector<int32_t> unknown{7};
  CHECK_THROWS(sdar::code::kInternal, "page 7", pool.release(unknown));
  CHECK(pool.free() == 2);
}

TEST("a known prefix is found page by page, under its own root only") {
  PagePool pool(16);
  const PrefixRoot root{4, ""}, salted{4, "tenant"}, other_blocks{2, ""};
  const Tokens tokens = counting(10, 14);
  auto table = store(pool, root, tokens);
  CHECK(table.size() == 3);
  CHECK(known(pool, root, tokens) == 3);
  CHECK(known(pool, salted, tokens) == 0);
  CHECK(known(pool, other_blocks, tokens) == 0);
  Tokens differs = tokens;
  differs[5] = 0;
  CHECK(known(pool, root, differs) == 1);
  CHECK(known(pool, root, counting(14, 8)) == 0);  // the same page content behind another prefix
  pool.release(table);
  CHECK(pool.cached() == 3 && pool.active() == 0 && pool.free() == 13);
  std::vector<int32_t> again;
  CHECK(pool.match(root, tokens, kPerPage, again) == 3);
  CHECK(pool.cached() == 0 && pool.active() == 3);
  pool.release(again);
}

TEST("contents computed twice are held once") {
  PagePool pool(8);
  const PrefixRoot root{4, ""};
  const Tokens tokens = counting(0, 8);
  std::vector<int32_t> a, b;
  CHECK(pool.take(2, a) && pool.take(2, b));
  for (size_t i = 0; i < 2; i++) pool.index_page(root, a, i, std::span(tokens).subspan(i * kPerPage, kPerPage));
  for (size_t i = 0; i < 2; i++) pool.index_page(root, b, i, std::span(tokens).subspan(i * kPerPage, kPerPage));
  CHECK(a == b && pool.holders(a[0]) == 2 && pool.active() == 2 && pool.free() == 6);
  pool.release(a);
  CHECK(pool.active() == 2);
  pool.release(b);
  CHECK(pool.cached() == 2);
}

TEST("least recently used pages go first, later ones of a prefix before earlier ones, pinned ones last") {
  PagePool pool(6);
  const PrefixRoot root{4, ""};
  const Tokens old = counting(0, 8), fresh = counting(100, 8), precious = counting(200, 8);
  auto p = store(pool, root, precious);
  for (int32_t page : p) pool.pin(page);
  pool.release(p);
  auto a = store(pool, root, old);
  pool.release(a);
  auto b = store(pool, root, fresh);
  pool.release(b);
  CHECK(pool.cached() == 6 && pool.pinned() == 2);
  std::vector<int32_t> table;
  CHECK(pool.take(1, table));
  CHECK(known(pool, root, old) == 1 && known(pool, root, fresh) == 2);
  CHECK(pool.take(2, table));
  CHECK(known(pool, root, old) == 0 && known(pool, root, fresh) == 1 && known(pool, root, precious) == 2);
  CHECK(pool.take(2, table));
  CHECK(known(pool, root, fresh) == 0 && known(pool, root, precious) == 1 && pool.pinned() == 1);
  CHECK(pool.take(1, table) && !pool.take(1, table));
  CHECK(pool.evictions() == 6 && pool.pinned() == 0 && pool.index().size() == 0);
  pool.release(table);
  CHECK(pool.free() == 6);
}

TEST("without keeping, contents are known while somebody holds them") {
  PagePool pool(4, false);
  const PrefixRoot root{4, ""};
  const Tokens tokens = counting(0, 8);
  auto a = store(pool, root, tokens);
  auto b = store(pool, root, tokens);
  CHECK(a == b);
  pool.release(a);
  CHECK(known(pool, root, tokens) == 2);
  pool.release(b);
  CHECK(known(pool, root, tokens) == 0 && pool.free() == 4 && pool.index().size() == 0);
}

TEST("a page with others behind it cannot leave the index") {
  sdar::PrefixIndex index(3);
  const PrefixRoot root{4, ""};
  index.insert(root, sdar::PrefixIndex::kNone, Tokens{1}, 0);
  index.insert(root, 0, Tokens{2}, 1);
  CHECK_THROWS(sdar::code::kInternal, "page 0", index.erase(0));
  CHECK_THROWS(sdar::code::kInternal, "page 1", index.insert(root, 0, Tokens{3}, 1));
  CHECK_THROWS(sdar::code::kInternal, "page 2", index.insert(root, 2, Tokens{3}, 2));
  index.erase(1);
  index.erase(0);
  CHECK(index.size() == 0);
  // Another page in the place of an erased parent has none of its children.
  index.insert(root, sdar::PrefixIndex::kNone, Tokens{9}, 0);
  CHECK(index.find(root, 0, Tokens{2}) == sdar::PrefixIndex::kNone);
}

TEST("thousands of random operations agree with a simple model") {
  for (const bool keep : {true, false}) {
    std::mt19937 random(keep ? 7 : 8);
    const int total = 41;
    PagePool pool(total, keep);
    struct Holder {
      PrefixRoot root;
      Tokens tokens;  // of its full, shared pages
      std::vector<int32_t> table;
    };
    std::vector<Holder> holders;
    using Content = std::pair<std::string, Tokens>;  // root and all tokens up to the end of the page
    std::map<int32_t, Content> contents;             // what was last written to a page and shared
    const auto key = [](const PrefixRoot& root) { return root.salt + "/" + std::to_string(root.block_length); };

    for (int round = 0; round < 20000; round++) {
      const int choice = static_cast<int>(random() % 10);
      if (choice < 5) {  // a request: few different prefixes, so that they meet
        Holder h{.root = {random() % 4 ? 4 : 2, random() % 5 ? "" : "s"}, .tokens = {}, .table = {}};
        const int pages = static_cast<int>(random() % 6);
        for (int i = 0; i < pages; i++) h.tokens.insert(h.tokens.end(), kPerPage, static_cast<int32_t>(random() % 3));
        const int32_t before = pool.available();
        int32_t cached = 0;
        const int32_t expected = pool.count_matches(h.root, h.tokens, kPerPage, cached);
        const int32_t found = pool.match(h.root, h.tokens, kPerPage, h.table);
        CHECK(found == expected && pool.available() == before - cached);
        for (int32_t i = 0; i < found; i++) {
          const Tokens prefix(h.tokens.begin(), h.tokens.begin() + (i + 1) * kPerPage);
          CHECK(contents.at(h.table[i]) == Content(key(h.root), prefix));
        }
        const int32_t more = pages - found + static_cast<int>(random() % 2);
        const int32_t available = pool.available();
        const bool took = pool.take(more, h.table);
        CHECK(took == (more <= available));
        if (!took) {
          pool.release(h.table);
          continue;
        }
        std::set<int32_t> mine(h.table.begin(), h.table.end());
        CHECK(mine.size() == h.table.size());
        for (size_t i = found; i < h.table.size(); i++) CHECK(pool.holders(h.table[i]) == 1);
        for (int32_t i = found; i < pages; i++) {
          const Tokens prefix(h.tokens.begin(), h.tokens.begin() + (i + 1) * kPerPage);
          pool.index_page(h.root, h.table, i, std::span(h.tokens).subspan(i * kPerPage, kPerPage));
          contents[h.table[i]] = {key(h.root), prefix};
          if (random() % 8 == 0 && i == found && found == 0) pool.pin(h.table[0]);
        }
        holders.push_back(std::move(h));
      } else if (!holders.empty()) {
        const size_t i = random() % holders.size();
        const Holder gone = std::move(holders[i]);
        holders.erase(holders.begin() + static_cast<std::ptrdiff_t>(i));
        auto table = gone.table;
        pool.release(table);
        CHECK(table.empty());
        if (keep && round % 3 == 0) CHECK(known(pool, gone.root, gone.tokens) == int(gone.tokens.size()) / kPerPage);
      }
      // Every page is in one state, and holders are counted right.
      std::map<int32_t, int32_t> count;
      for (const Holder& h : holders)
        for (int32_t page : h.table) count[page]++;
      CHECK(pool.active() == static_cast<int32_t>(count.size()));
      for (int32_t page = 0; page < total; page++)
        CHECK(pool.holders(page) == (count.contains(page) ? count[page] : 0));
      CHECK(pool.free() + pool.cached() + pool.active() == total);
      CHECK(pool.pinned() <= total && (keep || pool.cached() == 0));
      int32_t entered = 0;
      for (int32_t page = 0; page < total; page++) entered += pool.index().contains(page);
      CHECK(entered == pool.index().size() && entered >= pool.cached());
    }
    for (Holder& h : holders) pool.release(h.table);
    CHECK(pool.active() == 0);
    std::vector<int32_t> all;
    CHECK(pool.take(total, all) && pool.index().size() == 0 && pool.cached() == 0);
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
