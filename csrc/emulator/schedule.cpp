// Launches, the choice of who runs next, and barriers.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "block.h"

namespace pyrf::emulator {

Builtins* builtins = nullptr;
Counters counters{};
Block block{};

namespace {

struct {
  Schedule schedule = kRoundRobin;
  CopyMode copy_mode = kAtOnce;
  uint64_t seed = 1;
} settings;
uint64_t random_state = 1;
std::string error;
bool failed = false;

// The limits of every device since sm_80.
constexpr int kMaxThreads = 1024;
constexpr unsigned kMaxGridYZ = 65535;
constexpr int kMaxSharedBytes = 163 * 1024;

void switch_to(CudaThread* next) {
  CudaThread* previous = block.running;
  if (next == previous) return;
  ++counters.switches;
  block.running = next;
  builtins = next != nullptr ? &next->builtins : nullptr;
  Fiber& from = previous != nullptr ? previous->fiber : *Fiber::main();
  from.switch_to(next != nullptr ? next->fiber : *Fiber::main());
}

// The n-th set bit, counted around.
int set_bit(uint32_t bits, unsigned n) {
  for (unsigned skip = n % __builtin_popcount(bits); skip > 0; --skip) bits &= bits - 1;
  return __builtin_ctz(bits);
}

int pick_warp() {
  int best = -1;
  const int current = block.running != nullptr ? block.running->warp() : 0;
  const int start = settings.schedule == kRandom ? static_cast<int>(random_bits() % block.warps) : current;
  for (int i = 0; i < block.warps; ++i) {
    const int warp = (start + i) % block.warps;
    if (block.runnable[warp] == 0) continue;
    if (settings.schedule != kStarve) return warp;
    if (best < 0 || block.priority[warp] > block.priority[best]) best = warp;
  }
  return best;
}

CudaThread* pick() {
  const int warp = pick_warp();
  if (warp < 0) return nullptr;
  const int lane = set_bit(block.runnable[warp],
                           settings.schedule == kRoundRobin ? 0 : static_cast<unsigned>(random_bits() >> 32));
  block.runnable[warp] &= ~(1u << lane);
  return block.threads[warp * 32 + lane].get();
}

void draw_priorities() {
  for (unsigned& priority : block.priority) priority = static_cast<unsigned>(random_bits() >> 40);
}

[[noreturn]] void fail_deadlock() {
  std::string waits;
  for (int warp = 0; warp < block.warps; ++warp) {
    const WarpOp& op = block.ops[warp];
    if (op.arrived == 0) continue;
    char text[128];
    snprintf(text, sizeof text, "; warp %d waits in %s, line %d, lanes %08x", warp, op.name, op.line,
             op.arrived);
    waits += text;
  }
  fail("deadlock: of %d threads %d are done and %d wait at the barrier of line %d%s", block.size,
       block.finished, block.at_barrier, block.barrier_line, waits.c_str());
}

// The whole life of a CUDA thread.
void thread_entry() {
  acquire(&block.launch_event);
  block.kernel(block.argument);
  release(&block.launch_event);
  CudaThread& thread = *block.running;
  if (thread.landed < thread.copies.size()) fail("the thread ends with cp.async copies it never waited for");
  if (block.at_barrier > 0) {
    fail("the thread ends while %d wait at the barrier of line %d", block.at_barrier, block.barrier_line);
  }
  thread.fiber.leaving = true;
  ++block.finished;
  reschedule();
}

void begin_block(unsigned index, dim3 grid) {
  block.index = index;
  block.finished = block.at_barrier = block.barrier_line = block.barrier_phase = 0;
  block.running = nullptr;
  memset(block.ops, 0, sizeof block.ops);
  memset(block.runnable, 0, sizeof block.runnable);
  draw_priorities();
  const dim3 place(index % grid.x, index / grid.x % grid.y, index / (grid.x * grid.y));
  for (int id = 0; id < block.size; ++id) {
    CudaThread& thread = *block.threads[id];
    thread.builtins = {dim3(id, 0, 0), place, dim3(block.size), grid};
    thread.copies.clear();
    thread.landed = 0;
    thread.group = 0;
    thread.fiber.start(thread_entry);
    block.runnable[thread.warp()] |= 1u << thread.lane();
  }
  fill_shared_memory();
}

// Blocks in order, or shuffled where the schedule is not regular.
std::vector<unsigned> block_order(unsigned count) {
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) order[i] = i;
  if (settings.schedule == kRoundRobin) return order;
  for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
  return order;
}

const char* refuse_launch(dim3 grid, int threads, int shared_bytes) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) {
    return "emulator: a grid that no device launches";
  }
  if (threads < 1 || threads > kMaxThreads) return "emulator: blocks have 1 to 1024 threads";
  if (shared_bytes > kMaxSharedBytes) return "emulator: more shared memory than sm_80 has";
  return nullptr;
}

}  // namespace

void configure(Schedule schedule, uint64_t seed, CopyMode copy_mode) {
  settings.schedule = schedule;
  settings.copy_mode = copy_mode;
  settings.seed = seed;
}

Schedule schedule() { return settings.schedule; }
CopyMode copy_mode() { return settings.copy_mode; }

uint64_t random_bits() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545f4914f6cdd1dull;
}

void fail(const char* format, ...) {
  char text[512];
  const dim3& at = builtins->block;
  int used = snprintf(text, sizeof text, "emulator: block (%u, %u, %u) thread %d: ", at.x, at.y, at.z,
                      block.running->id);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + used, sizeof text - used, format, arguments);
  va_end(arguments);
  error = text;
  failed = true;
  block.running->fiber.leaving = true;
  switch_to(nullptr);
  abort();
}

void wake(int warp, uint32_t lanes) { block.runnable[warp] |= lanes; }

void reschedule() {
  CudaThread* next = pick();
  if (next == nullptr && block.finished < block.size) fail_deadlock();
  switch_to(next);
}

void maybe_yield() {
  constexpr int kOneIn = 8;
  if (settings.schedule != kRandom || random_bits() % kOneIn != 0) return;
  wake(block.running->warp(), 1u << block.running->lane());
  reschedule();
}

void sync_threads(int line) {
  if (block.finished > 0) fail("barrier of line %d after %d threads ended", line, block.finished);
  if (block.at_barrier > 0 && block.barrier_line != line) {
    fail("divergent barriers: line %d and line %d", line, block.barrier_line);
  }
  block.barrier_line = line;
  char* event = &block.barrier_event[block.barrier_phase];
  release(event);
  if (++block.at_barrier == block.size) {
    ++counters.barriers;
    block.at_barrier = 0;
    block.barrier_phase ^= 1;
    for (int id = 0; id < block.size; ++id) wake(id / 32, 1u << id % 32);
    draw_priorities();
  }
  reschedule();
  acquire(event);
}

const char* run(void (*kernel)(void*), void* argument, dim3 grid, int threads, int shared_bytes) {
  if (const char* refusal = refuse_launch(grid, threads, shared_bytes)) return refusal;
  random_state = settings.seed * 0x9e3779b97f4a7c15ull + 1;
  failed = false;
  block.size = threads;
  block.warps = (threads + 31) / 32;
  block.kernel = kernel;
  block.argument = argument;
  while (static_cast<int>(block.threads.size()) < threads) {
    block.threads.push_back(std::make_unique<CudaThread>());
    block.threads.back()->id = static_cast<int>(block.threads.size()) - 1;
  }
  begin_shared_memory(shared_bytes);
  begin_global_memory();
  for (unsigned index : block_order(grid.x * grid.y * grid.z)) {
    begin_block(index, grid);
    release(&block.launch_event);
    switch_to(pick());
    acquire(&block.launch_event);
    if (failed) break;
  }
  block.running = nullptr;
  end_shared_memory();
  return failed ? error.c_str() : nullptr;
}

}  // namespace pyrf::emulator
