#include "bench/limits.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "backend/cpu/cpu.h"
#include "backend/cpu/pool.h"
#include "util/mapped_file.h"

namespace sdar {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// More than the largest cache holds, of all that this machine's cores share.
size_t buffer_bytes() {
  constexpr size_t kLeast = size_t{256} << 20, kMost = size_t{1} << 30;
  long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
  cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return std::clamp<size_t>(4 * static_cast<size_t>(std::max(cache, 0L)), kLeast, kMost);
}

class CpuLimitProbe final : public LimitProbe {
 public:
  CpuLimitProbe(int threads, const std::string& isa)
      : pool_(threads), loops_(limit_loops(isa)), bytes_(buffer_bytes()), buffer_(map_memory(bytes_)) {
    // Written, so that each page is memory of its own.
    for (size_t i = 0; i < bytes_; i += 1024) buffer_.get()[i] = std::byte{1};
  }

  double read_bandwidth() override {
    const size_t share = bytes_ / pool_.threads() / 4096 * 4096;
    const auto start = Clock::now();
    pool_.run([&](int worker) { loops_.read(buffer_.get() + worker * share, share); });
    return static_cast<double>(share) * pool_.threads() / seconds_since(start);
  }

  double multiply_rate(WeightFormat format) override {
    const MultiplyLoop& loop = loops_.multiply[static_cast<int>(format)];
    int64_t& rounds = rounds_[static_cast<int>(format)];
    for (;;) {
      const auto start = Clock::now();
      pool_.run([&](int) { loop.run(rounds); });
      const double seconds = seconds_since(start);
      if (seconds >= kLeastSeconds)
        return static_cast<double>(loop.operations) * static_cast<double>(rounds) * pool_.threads() / seconds;
      rounds *= 2;
    }
  }

  const char* multiply_instruction(WeightFormat format) const override {
    return loops_.multiply[static_cast<int>(format)].instruction;
  }

 private:
  static constexpr double kLeastSeconds = 0.01;

  cpu::Pool pool_;
  const LimitLoops& loops_;
  size_t bytes_;
  std::shared_ptr<std::byte> buffer_;
  int64_t rounds_[4] = {4096, 4096, 4096, 4096};
};

/// What is left where no instruction set has loops of its own: whatever the compiler makes of plain code.
void plain_multiply(int64_t rounds) {
  float sums[32] = {}, a = 1.0f, b = 0.5f;
  for (int64_t r = 0; r < rounds; r++) {
    asm volatile("" : "+m"(sums), "+r"(a), "+r"(b));
    for (float& sum : sums) sum += a * b;
  }
  asm volatile("" : : "m"(sums));
}

void plain_read(const std::byte* data, size_t bytes) {
  uint64_t sum = 0;
  for (const auto *at = reinterpret_cast<const uint64_t*>(data), *end = at + bytes / 8; at < end; at++) sum |= *at;
  asm volatile("" : : "r"(sum));
}

constexpr MultiplyLoop kPlain{"plain multiply-add", plain_multiply, 64};
const LimitLoops kPortable{"portable", {kPlain, kPlain, kPlain, kPlain}, plain_read};

}  // namespace

const LimitLoops& limit_loops(const std::string& isa) {
  for (const LimitLoops* loops = built_limit_loops(); loops->isa; loops++)
    if (isa == loops->isa) return *loops;
  return kPortable;
}

std::unique_ptr<LimitProbe> make_limit_probe(int threads, const std::string& isa) {
  return std::make_unique<CpuLimitProbe>(threads, isa);
}

}  // namespace sdar
