// Built without -fsanitize=thread even where kernels are built with it, with PYRF_TSAN or PYRF_ASAN defined.
#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef PYRF_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif
#ifdef PYRF_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t bytes);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* bytes);
void __asan_unpoison_memory_region(const volatile void* address, size_t bytes);
}
#endif

namespace pyrf::emulator {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kStagger = 960;  // stacks at the same place of a page would share the same few cache lines

Fiber* running = nullptr;  // what `enter` belongs to

#ifdef PYRF_EMULATOR_ASM
// Saves the registers that a call preserves, 20 times faster than ucontext, which also makes a system call.
extern "C" __attribute__((naked, noinline)) void pyrf_emulator_switch(void** /*save*/, void* /*to*/) {
  asm volatile(
      "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, (%rdi); movq %rsi, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
      "popq %rcx; jmp *%rcx\n");
}
constexpr size_t kSavedWords = 6;
#endif

}  // namespace

void release([[maybe_unused]] void* event) {
#ifdef PYRF_TSAN
  __tsan_release(event);
#endif
}

void acquire([[maybe_unused]] void* event) {
#ifdef PYRF_TSAN
  __tsan_acquire(event);
#endif
}

Fiber* Fiber::main() {
  static Fiber fiber{Main{}};
  return &fiber;
}

Fiber::Fiber(Main) {
#ifdef PYRF_TSAN
  tsan_fiber_ = __tsan_get_current_fiber();
#endif
#ifdef PYRF_ASAN
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* bottom;
  pthread_attr_getstack(&attributes, &bottom, &stack_bytes_);
  pthread_attr_destroy(&attributes);
  stack_ = static_cast<char*>(bottom);
#endif
}

Fiber::Fiber() : stack_bytes_(kStackBytes) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  stack_ = static_cast<char*>(memory) + kGuardBytes;
  static size_t count = 0;
  stagger_ = count++ * kStagger % (kStackBytes / 2);
#ifdef PYRF_TSAN
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  if (this == main()) return;
#ifdef PYRF_TSAN
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes);
}

void Fiber::start(void (*entry)()) {
  entry_ = entry;
  leaving = false;
  fake_stack_ = nullptr;
#ifdef PYRF_ASAN
  __asan_unpoison_memory_region(stack_, stack_bytes_);
#endif
#ifdef PYRF_EMULATOR_ASM
  // As if `enter` had been called: its return address lies at a multiple of 16, plus 8.
  void** top = reinterpret_cast<void**>(stack_ + stack_bytes_ - stagger_) - 1;
  *--top = reinterpret_cast<void*>(&Fiber::enter);
  top -= kSavedWords;
  memset(top, 0, kSavedWords * sizeof *top);
  stack_pointer_ = top;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = stack_bytes_ - stagger_;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::enter, 0);
#endif
}

void Fiber::enter() {
#ifdef PYRF_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  running->entry_();
  abort();
}

void Fiber::switch_to(Fiber& next) {
  running = &next;
#ifdef PYRF_TSAN
  constexpr unsigned kNoSync = 1;  // only barriers order threads, not the accident of running in turn
  __tsan_switch_to_fiber(next.tsan_fiber_, kNoSync);
#endif
#ifdef PYRF_ASAN
  __sanitizer_start_switch_fiber(leaving ? nullptr : &fake_stack_, next.stack_, next.stack_bytes_);
#endif
#ifdef PYRF_EMULATOR_ASM
  pyrf_emulator_switch(&stack_pointer_, next.stack_pointer_);
#else
  swapcontext(&context_, &next.context_);
#endif
#ifdef PYRF_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

}  // namespace pyrf::emulator
