// The block under way: its threads, who can run, and what they wait for. Shared by the emulator's files.
#pragma once

#include <memory>
#include <vector>

#include "emulator.h"
#include "fiber.h"

namespace pyrf::emulator {

constexpr int kMaxWarps = 32;

struct CudaThread {
  Builtins builtins;
  Fiber fiber;
  int id;  // in the block
  std::vector<Copy> copies;
  size_t landed;  // of them
  int group;      // of the next copy

  int warp() const { return id / 32; }
  int lane() const { return id % 32; }
};

// A warp instruction that some lanes have reached.
struct WarpOp {
  const char* name;
  int line;
  uint32_t arrived;  // lanes
  int argument;      // must be the same in every lane
  const void* in[32];
  void* out[32];
};

struct Block {
  std::vector<std::unique_ptr<CudaThread>> threads;  // the first `size` of them are this block's
  int size, warps, finished;
  CudaThread* running;           // null while the launch itself runs
  uint32_t runnable[kMaxWarps];  // lanes
  unsigned priority[kMaxWarps];  // of the starving schedule
  WarpOp ops[kMaxWarps];
  int at_barrier, barrier_line, barrier_phase;
  void (*kernel)(void*);
  void* argument;
  unsigned index;  // in the grid
  // Addresses that stand for events, see `release`.
  char launch_event, barrier_event[2], warp_event[kMaxWarps];
};

extern Block block;

Schedule schedule();
CopyMode copy_mode();
uint64_t random_bits();

// Let another thread run. The running one must be runnable, or be waited for by someone.
void reschedule();
// Mark lanes as runnable.
void wake(int warp, uint32_t lanes);

// shared_memory.cpp
void begin_shared_memory(int bytes);
void fill_shared_memory();
void end_shared_memory();
// global_memory.cpp
void begin_global_memory();

}  // namespace pyrf::emulator
