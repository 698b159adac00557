// A stack of its own for each CUDA thread, and the switch between two of them (some 5 ns on x86-64).
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

namespace sdar::cuda_host {

struct Fiber {
  void* resume = nullptr;  ///< its stack pointer while another runs
  std::byte* stack = nullptr;
  size_t size = 0;
  void* sanitizer = nullptr;  ///< what a sanitizer keeps of it
};

/// Starts over at `entry` when next switched to; entry never returns.
void prepare(Fiber& fiber, void (*entry)());
/// Must be the first call of an entry.
void entered();
/// Suspends `from` (the one that runs) and goes on in `to`.
void switch_fiber(Fiber& from, Fiber& to);
/// Describes the calling thread's own stack, so that it can be switched from and to.
void describe_own_stack(Fiber& fiber);

/// Stacks with a page without access below each. Grows to the largest block so far.
class Stacks {
 public:
  Stacks() = default;
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  void give(Fiber& fiber);  ///< a stack for a fiber that has none

 private:
  std::vector<void*> mapped_;
  size_t handed_out_ = 0;
};

}  // namespace sdar::cuda_host
