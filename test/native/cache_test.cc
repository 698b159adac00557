// The page pool against a simple model: a set of free pages.
#include <random>
#include <set>

#include "cache/page_pool.h"
#include "check.h"
#include "ops/segment.h"

using sdar::PagePool;

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

TEST("a page released twice is refused") {
  PagePool pool(2);
  std::vector<int32_t> table;
  pool.take(1, table);
  std::vector<int32_t> again = table;
  pool.release(table);
  CHECK_THROWS(sdar::code::kInternal, "not in use", pool.release(again));
  std::vector<int32_t> unknown{7};
  CHECK_THROWS(sdar::code::kInternal, "page 7", pool.release(unknown));
}

TEST("thousands of random operations agree with a set of free pages") {
  std::mt19937 random(7);
  const int total = 37;
  PagePool pool(total);
  std::set<int32_t> free;
  for (int i = 0; i < total; i++) free.insert(i);
  std::vector<std::vector<int32_t>> tables;
  for (int round = 0; round < 20000; round++) {
    if (random() % 2 || tables.empty()) {
      const int want = random() % 9;
      std::vector<int32_t> table;
      const bool ok = pool.take(want, table);
      CHECK(ok == (want <= static_cast<int>(free.size())));
      for (int32_t page : table) CHECK(free.erase(page) == 1);
      if (ok) tables.push_back(table);
    } else {
      const size_t i = random() % tables.size();
      free.insert(tables[i].begin(), tables[i].end());
      pool.release(tables[i]);
      CHECK(tables[i].empty());
      tables.erase(tables.begin() + i);
    }
    CHECK(pool.available() == static_cast<int>(free.size()));
    CHECK(pool.available() + pool.active() == pool.total());
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
