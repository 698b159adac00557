#include "simt/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__APPLE__)
#define SYMBOL(name) "_" #name
#else
#define SYMBOL(name) #name
#endif

namespace sdar::cuda_host {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kStack = 256 * 1024;
#else
constexpr size_t kStack = 64 * 1024;
#endif
constexpr size_t kGuard = 64 * 1024;  // of any page size

}  // namespace

// sdar_switch_stack(where to keep the present stack pointer, the stack pointer to go on with): pushes what a function
// must preserve, changes stacks, pops the same of the other.
#if defined(__x86_64__)
asm(".text\n.globl " SYMBOL(sdar_switch_stack) "\n" SYMBOL(sdar_switch_stack) R"(:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#elif defined(__aarch64__)
asm(".text\n.globl " SYMBOL(sdar_switch_stack) "\n" SYMBOL(sdar_switch_stack) R"(:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#else
#error "the fiber switch is written for x86-64 and 64-bit Arm"
#endif
extern "C" void sdar_switch_stack(void** keep, void* next);

void prepare(Fiber& fiber, void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, fiber.size);
#endif
  auto* top = reinterpret_cast<void**>(fiber.stack + fiber.size);
#if defined(__x86_64__)
  top[-1] = nullptr;  // where entry would return to
  top[-2] = reinterpret_cast<void*>(entry);
  std::memset(top - 8, 0, 6 * sizeof(void*));
  fiber.resume = top - 8;
#else
  std::memset(top - 20, 0, 20 * sizeof(void*));
  top[-20 + 11] = reinterpret_cast<void*>(entry);  // x30
  fiber.resume = top - 20;
#endif
}

void entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.size);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.sanitizer, 0);
#endif
  sdar_switch_stack(&from.resume, to.resume);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

void describe_own_stack(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  pthread_attr_t attributes;
  void* bottom = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &fiber.size);
  pthread_attr_destroy(&attributes);
  fiber.stack = static_cast<std::byte*>(bottom);
#elif defined(__SANITIZE_THREAD__)
  fiber.sanitizer = __tsan_get_current_fiber();
#else
  (void)fiber;
#endif
}

void Stacks::give(Fiber& fiber) {
  void* base = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(base, kGuard, PROT_NONE) != 0) throw std::bad_alloc();
  mapped_.push_back(base);
  fiber.stack = static_cast<std::byte*>(base) + kGuard;
  // Tops at different offsets within a page, or all stacks would share a few sets of the cache.
  fiber.size = kStack - handed_out_++ * 320 % 4096 / 64 * 64;
#if defined(__SANITIZE_THREAD__)
  fiber.sanitizer = __tsan_create_fiber(0);
#endif
}

Stacks::~Stacks() {
  for (void* base : mapped_) munmap(base, kGuard + kStack);
}

}  // namespace sdar::cuda_host
