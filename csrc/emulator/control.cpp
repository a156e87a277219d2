// What tests ask of the emulator beside the ops, as C functions.
#include <cstring>

#include "emulator.h"

using namespace pyrf;

extern "C" {

void pyrf_emulator_configure(int schedule, uint64_t seed, int copy_mode) {
  emulator::configure(static_cast<emulator::Schedule>(schedule), seed,
                      static_cast<emulator::CopyMode>(copy_mode));
}

void pyrf_emulator_register(const void* start, uint64_t bytes, const char* name) {
  emulator::register_buffer(start, bytes, name);
}

void pyrf_emulator_forget() { emulator::forget_buffers(); }

// Copy the counters, in the order of `Counters`, and start them again.
void pyrf_emulator_counters(uint64_t* into) {
  memcpy(into, &emulator::counters, sizeof emulator::counters);
  emulator::counters = {};
}
}
