// Every allocation of the engine's thread fails in turn: requests then end with OUT_OF_MEMORY or as if nothing had
// happened, each exactly once, no page is lost, and the engine goes on.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>

#include "check.h"
#include "harness.h"

namespace {

std::atomic<int64_t> countdown{-1};  // the allocation that fails; negative: none
std::atomic<int64_t> failed{0};
thread_local bool exempt = false;  // the test itself

void* allocate(size_t size, size_t alignment) {
  if (!exempt && countdown.load() >= 0 && countdown.fetch_sub(1) == 0) {
    failed++;
    return nullptr;
  }
  return alignment > alignof(std::max_align_t)
             ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
             : std::malloc(size ? size : 1);
}

void* allocate_or_throw(size_t size, size_t alignment) {
  if (void* p = allocate(size, alignment)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t size) { return allocate_or_throw(size, 1); }
void* operator new[](size_t size) { return allocate_or_throw(size, 1); }
void* operator new(size_t size, std::align_val_t a) { return allocate_or_throw(size, size_t(a)); }
void* operator new[](size_t size, std::align_val_t a) { return allocate_or_throw(size, size_t(a)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return allocate(size, 1); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return allocate(size, 1); }
void* operator new(size_t size, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(size, size_t(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

TEST("every allocation of the engine's thread may fail") {
  exempt = true;
  sdar::EngineOptions options{.path = harness::small_model().path, .weights = sdar::WeightFormat::int8, .threads = 1};
  options.kv_tokens = 6 * 64;
  harness::Runner runner(options);
  uint32_t seed = 0;
  const auto request = [&](int length, int tokens, uint32_t s) {
    std::mt19937 random(s);
    sdar::Request r;
    for (int i = 0; i < length; i++) r.tokens.push_back(int32_t(random() % harness::small_model().ids));
    r.max_tokens = tokens;
    r.ignore_eos = true;
    r.drafts = true;
    r.stop = {"never"};
    r.pin = s % 3 == 0;
    return r;
  };
  const sdar::Request probe = request(30, 20, 1);
  const auto expected = runner.run({probe})[0];
  int told = 0, unharmed = 0;
  const int most = harness::quick() ? 20 : 600;
  for (int n = 0; n < most; n++) {
    std::vector<sdar::Request> requests;
    for (int i = 0; i < 5; i++) requests.push_back(request(20 + 15 * i, 60 + 8 * i, ++seed));
    requests.push_back(probe);
    const int64_t before = failed;
    countdown = harness::quick() ? 17 * n : n;
    const auto results = runner.run(requests);
    countdown = -1;
    for (const auto& result : results) {
      CHECK(result.ends == 1);
      CHECK(result.error.empty() || result.error == sdar::code::kOutOfMemory);
      told += !result.error.empty();
    }
    unharmed += results.back().error.empty();
    CHECK(!results.back().error.empty() || results.back().same(expected));
    const auto stats = runner.engine().stats();
    CHECK(stats.pages_free + stats.pages_cached == stats.pages_total);
    CHECK(stats.running == 0 && stats.waiting == 0 && stats.paused == 0);
    CHECK(failed <= before + 1);
  }
  std::printf("# %lld allocations failed, %d requests ended by it, %d beside it did not\n",
              static_cast<long long>(failed.load()), told, unharmed);
  CHECK(failed > most / 2 && told > 0 && unharmed > 0);
  CHECK(runner.run({probe})[0].same(expected));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
