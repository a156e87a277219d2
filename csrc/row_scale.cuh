// A row of 16-bit numbers to e4m3 with one scale: its largest number becomes 448. The products are those of
// torch's plain path, in its order, so that both round to the same bits.
#pragma once

#include "elements.cuh"

namespace pyrf {

PYRF_DEVICE uint32_t larger(uint32_t x, uint32_t y) { return x > y ? x : y; }

// The largest size among eight numbers, as its bits: without a sign these are in the order of what they mean,
// and NaN lies above all.
PYRF_DEVICE uint32_t largest_size(uint4 words) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) largest = larger(largest, larger(word[i] & 0x7fff, word[i] >> 16 & 0x7fff));
  return largest;
}

// The largest over the lanes of a row; every lane of the warp must call.
template <int kLanes>
PYRF_DEVICE uint32_t row_largest(uint32_t x) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) x = larger(x, ptx::shuffle_xor(x, step));
  return x;
}

// By what e4m3 is multiplied to give the row, and its inverse.
struct RowScale {
  float scale, inverse;

  // From the bits of the row's largest size. That of a row of zeros still divides, and NaN stays.
  template <class T>
  static PYRF_DEVICE RowScale of(uint32_t largest) {
    constexpr float kLeast = 1e-12f, kUnit = static_cast<float>(1.0 / 448.0);
    const float size = ptx::unpack<T>(largest).x;
    const float scale = (size < kLeast ? kLeast : size) * kUnit;
    return {scale, 1.0f / scale};
  }

  template <class T>
  PYRF_DEVICE uint2 rounded(uint4 words) const {
    float x[kVector];
    unpack<T>(words, x);
#pragma unroll
    for (int i = 0; i < kVector; ++i) x[i] *= inverse;
    return pack<E4m3>(x);
  }
};

}  // namespace pyrf
