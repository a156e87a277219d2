// Shared memory and the copies into it. The block's memory has its exact size, and starts full of NaN.
#include <cstdlib>
#include <cstring>

#include "block.h"

#ifdef PYRF_ASAN
extern "C" void __asan_poison_memory_region(const volatile void* address, size_t bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void* address, size_t bytes);
#endif

namespace pyrf::emulator {
namespace {

constexpr size_t kAlignment = 1024;

unsigned char* memory = nullptr;
size_t size = 0, room = 0;

}  // namespace

void begin_shared_memory(int bytes) {
  size = static_cast<size_t>(bytes);
  room = (size / kAlignment + 1) * kAlignment;
  memory = static_cast<unsigned char*>(aligned_alloc(kAlignment, room));
#ifdef PYRF_ASAN
  __asan_poison_memory_region(memory + size, room - size);
#endif
}

void fill_shared_memory() { memset(memory, 0xff, size); }

void end_shared_memory() {
#ifdef PYRF_ASAN
  __asan_unpoison_memory_region(memory, room);
#endif
  free(memory);
  memory = nullptr;
}

void* shared_at(uint32_t address, uint32_t bytes, int line) {
  if (address + size_t{bytes} > size) {
    fail("shared memory: %u bytes at %u, of %zu, line %d", bytes, address, size, line);
  }
  if (address % bytes != 0)
    fail("shared memory: %u bytes at %u are misaligned, line %d", bytes, address, line);
  maybe_yield();
  return memory + address;
}

bool copy_lands_at_once() {
  ++counters.async_copies;
  return copy_mode() == kAtOnce || (copy_mode() == kEither && random_bits() % 2 == 0);
}

void queue_copy(Copy copy) {
  copy.group = block.running->group;
  block.running->copies.push_back(copy);
}

void commit_copies() { ++block.running->group; }

bool next_copy(int pending, Copy* copy) {
  CudaThread& thread = *block.running;
  if (thread.landed == thread.copies.size()) {
    thread.copies.clear();
    thread.landed = 0;
    return false;
  }
  const Copy& next = thread.copies[thread.landed];
  if (next.group >= thread.group - pending) return false;
  *copy = next;
  ++thread.landed;
  return true;
}

}  // namespace pyrf::emulator
