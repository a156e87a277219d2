// The CPU emulator of CUDA kernels, a test target. Every CUDA thread is a fiber, blocks run one after
// another, and warp instructions are computed by the last lane to arrive. Kernels reach it through
// `emulator/ptx.h` only.
#pragma once

#include <cstddef>
#include <cstdint>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(8) float2 {
  float x, y;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace pyrf::emulator {

// Who may run next whenever a thread waits.
enum Schedule {
  kRoundRobin = 0,  // the same warp while it can, lanes in order
  kRandom = 1,      // any thread, also in the middle of memory accesses
  kStarve = 2,      // one warp as far as it can get, drawn anew at every barrier
};

// When a cp.async lands.
enum CopyMode {
  kAtOnce = 0,
  kAtWait = 1,  // NaN until the wait
  kEither = 2,
};

// What a product takes: two of them in a word, or four of e4m3.
enum Element { kBf16 = 0, kFp16 = 1, kE4m3 = 2 };

struct Counters {
  uint64_t switches, barriers, matrix_loads, bank_conflicts, multiply_adds, async_copies;
  uint64_t bytes_loaded, bytes_stored;  // of global memory
};

// The built-in variables of a CUDA thread.
struct Builtins {
  dim3 thread, block, block_size, grid_size;
};

extern Builtins* builtins;  // of the running thread
extern Counters counters;

// Run every thread of a grid; returns null or what went wrong, valid until the next run.
const char* run(void (*kernel)(void*), void* argument, dim3 grid, int threads, int shared_bytes);

// End the launch with an error that names the running thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void configure(Schedule schedule, uint64_t seed, CopyMode copy_mode);

// Barriers and warp instructions. `line` tells two of them apart.
void sync_threads(int line);
void sync_warp(int line);
void maybe_yield();
uint32_t shuffle_xor(uint32_t x, int lanes, int line);
void load_matrices(uint32_t (&x)[4], const uint32_t (&row)[4], uint32_t address, bool transposed, int line);
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Element element, int line);

// Shared memory of the running block.
void* shared_at(uint32_t address, uint32_t bytes, int line);

// Global memory: once a buffer is registered, every access must fall into one, and no two blocks of a launch
// may meet at an address that one of them writes.
void register_buffer(const void* start, size_t bytes, const char* name);
void forget_buffers();
void check_load(const void* from, uint32_t bytes, int line);
void check_store(const void* to, uint32_t bytes, int line);

// Copies of the running thread.
struct Copy {
  void* to;
  const void* from;  // null for zeros
  int group;
};
bool copy_lands_at_once();
void queue_copy(Copy copy);  // for those that do not
void commit_copies();
// The next copy that must have landed when at most `pending` groups are left under way.
bool next_copy(int pending, Copy* copy);

}  // namespace pyrf::emulator
