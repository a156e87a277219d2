// The bodies of ../ptx.h for a host compiler. Memory is touched here, in the kernels' own translation unit,
// so that sanitizers see every access; the rest is the emulator's.
#pragma once

#include <cmath>
#include <cstring>

#include "emulator.h"

#define PYRF_DEVICE inline
#define __global__
#define __launch_bounds__(...)
#define threadIdx (pyrf::emulator::builtins->thread)
#define blockIdx (pyrf::emulator::builtins->block)
#define blockDim (pyrf::emulator::builtins->block_size)
#define gridDim (pyrf::emulator::builtins->grid_size)

namespace pyrf::ptx {

using Shared = uint32_t;

inline void sync_threads(int line = __builtin_LINE()) { emulator::sync_threads(line); }
inline void sync_warp(int line = __builtin_LINE()) { emulator::sync_warp(line); }

inline uint32_t float_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float bits_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline float shuffle_xor(float x, int lanes, int line = __builtin_LINE()) {
  return bits_float(emulator::shuffle_xor(float_bits(x), lanes, line));
}

inline uint32_t shuffle_xor(uint32_t x, int lanes, int line = __builtin_LINE()) {
  return emulator::shuffle_xor(x, lanes, line);
}

inline float exp2(float x) { return exp2f(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline float reciprocal(float x) { return 1.0f / x; }

// A float rounded to 16 bits, and back.
template <class T>
inline uint32_t narrow(float x) {
  if constexpr (std::is_same_v<T, Bf16>) {
    const uint32_t bits = float_bits(x);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  } else {
    const _Float16 half = static_cast<_Float16>(x);
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
  }
}

template <class T>
inline float widen(uint32_t bits) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return bits_float(bits << 16);
  } else {
    const uint16_t half_bits = static_cast<uint16_t>(bits);
    _Float16 half;
    memcpy(&half, &half_bits, sizeof half);
    return static_cast<float>(half);
  }
}

template <class T>
inline uint32_t pack(float low, float high) {
  return narrow<T>(low) | narrow<T>(high) << 16;
}

template <class T>
inline float2 unpack(uint32_t word) {
  return make_float2(widen<T>(word & 0xffff), widen<T>(word >> 16));
}

}  // namespace pyrf::ptx

#include "../e4m3.h"

namespace pyrf::ptx {

inline uint32_t pack_e4m3(float low, float high) { return narrow_e4m3(low) | narrow_e4m3(high) << 8; }

inline uint4 load16(const void* from, int line = __builtin_LINE()) {
  emulator::check_load(from, 16, line);
  return *static_cast<const uint4*>(from);
}

inline void store16(void* to, uint4 x, int line = __builtin_LINE()) {
  emulator::check_store(to, 16, line);
  *static_cast<uint4*>(to) = x;
}

inline uint2 load8(const void* from, int line = __builtin_LINE()) {
  emulator::check_load(from, 8, line);
  return *static_cast<const uint2*>(from);
}

inline void store8(void* to, uint2 x, int line = __builtin_LINE()) {
  emulator::check_store(to, 8, line);
  *static_cast<uint2*>(to) = x;
}

inline void store_float(float* to, float x, int line = __builtin_LINE()) {
  emulator::check_store(to, 4, line);
  *to = x;
}

inline float2 load_pair(const float* from, int line = __builtin_LINE()) {
  emulator::check_load(from, 8, line);
  return make_float2(from[0], from[1]);
}

inline int64_t load_index(const int64_t* from, int line = __builtin_LINE()) {
  emulator::check_load(from, 8, line);
  return *from;
}

inline Shared shared_memory() { return 0; }

inline void store_shared(Shared to, uint32_t x, int line = __builtin_LINE()) {
  *static_cast<uint32_t*>(emulator::shared_at(to, 4, line)) = x;
}

inline uint32_t load_shared(Shared from, int line = __builtin_LINE()) {
  return *static_cast<uint32_t*>(emulator::shared_at(from, 4, line));
}

inline uint4 load_shared16(Shared from, int line = __builtin_LINE()) {
  return *static_cast<uint4*>(emulator::shared_at(from, 16, line));
}

inline void store_shared16(Shared to, uint4 x, int line = __builtin_LINE()) {
  *static_cast<uint4*>(emulator::shared_at(to, 16, line)) = x;
}

inline uint32_t permute(uint32_t a, uint32_t b, uint32_t picks) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word |= (bytes >> (picks >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return word;
}

inline void land(const emulator::Copy& copy) {
  *static_cast<uint4*>(copy.to) = copy.from != nullptr ? *static_cast<const uint4*>(copy.from) : uint4{};
}

inline void copy_async16(Shared to, const void* from, bool valid, int line = __builtin_LINE()) {
  if (valid) emulator::check_load(from, 16, line);
  const emulator::Copy copy{emulator::shared_at(to, 16, line), valid ? from : nullptr, 0};
  if (emulator::copy_lands_at_once()) {
    land(copy);
  } else {
    *static_cast<uint4*>(copy.to) = make_uint4(~0u, ~0u, ~0u, ~0u);  // NaN in every type
    emulator::queue_copy(copy);
  }
}

inline void copy_async_commit() { emulator::commit_copies(); }

template <int kPending>
inline void copy_async_wait() {
  emulator::Copy copy;
  while (emulator::next_copy(kPending, &copy)) land(copy);
}

inline void load_row(uint32_t (&x)[4], Shared row, bool transposed, int line) {
  const uint4 words = *static_cast<const uint4*>(emulator::shared_at(row, 16, line));
  const uint32_t own[4] = {words.x, words.y, words.z, words.w};
  emulator::load_matrices(x, own, row, transposed, line);
}

inline void load_matrices(uint32_t (&x)[4], Shared row, int line = __builtin_LINE()) {
  load_row(x, row, false, line);
}

inline void load_matrices_transposed(uint32_t (&x)[4], Shared row, int line = __builtin_LINE()) {
  load_row(x, row, true, line);
}

template <class T>
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         int line = __builtin_LINE()) {
  const auto element = std::is_same_v<T, Bf16>   ? emulator::kBf16
                       : std::is_same_v<T, Fp16> ? emulator::kFp16
                                                 : emulator::kE4m3;
  emulator::multiply_add(c, a, b0, b1, element, line);
}

}  // namespace pyrf::ptx
