// A stack of its own and the point where it stopped. Sanitizers are told of every switch.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(PYRF_EMULATOR_UCONTEXT)
#define PYRF_EMULATOR_ASM
#else
#include <ucontext.h>
#endif

namespace pyrf::emulator {

class Fiber {
 public:
  // The fiber of the stack that is running already.
  static Fiber* main();

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Make the next switch here call `entry`, which must not return. What ran here before is abandoned.
  void start(void (*entry)());

  // Continue `next`; returns when something switches back to `this`.
  void switch_to(Fiber& next);

  // The fiber is about to leave for good: its `switch_to` will not return.
  bool leaving = false;

 private:
  struct Main {};
  explicit Fiber(Main);

  static void enter();

  char* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  size_t stagger_ = 0;  // unused bytes at the top
  void (*entry_)() = nullptr;
#ifdef PYRF_EMULATOR_ASM
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;  // ThreadSanitizer's
};

// ThreadSanitizer learns what orders threads: what happened before a release is seen after an acquire.
void release(void* event);
void acquire(void* event);

}  // namespace pyrf::emulator
