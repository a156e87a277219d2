// Eight 16-bit elements, the unit of every access to global memory, as floats.
#pragma once

#include "params.h"
#include "ptx.h"

namespace pyrf {

inline constexpr int kVector = 8;  // elements in 16 bytes

template <class T>
PYRF_DEVICE void unpack(uint4 words, float (&x)[kVector]) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = ptx::unpack<T>(word[i]);
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
}

template <class T>
PYRF_DEVICE uint4 pack(const float (&x)[kVector]) {
  return make_uint4(ptx::pack<T>(x[0], x[1]), ptx::pack<T>(x[2], x[3]), ptx::pack<T>(x[4], x[5]),
                    ptx::pack<T>(x[6], x[7]));
}

// The adjacent channels 2i and 2i + 1 as a complex number, times cosine + i sine.
PYRF_DEVICE void turn_pair(float& even, float& odd, float cosine, float sine) {
  const float turned = even * cosine - odd * sine;
  odd = even * sine + odd * cosine;
  even = turned;
}

// Elements are addressed as the 16-bit words they are; arithmetic is on floats only.
PYRF_DEVICE const uint16_t* at(const void* base, const Strides& strides, int batch, int head, int token) {
  return static_cast<const uint16_t*>(base) + batch * strides.batch + head * strides.head +
         token * strides.token;
}

PYRF_DEVICE uint16_t* at(void* base, const Strides& strides, int batch, int head, int token) {
  return const_cast<uint16_t*>(at(static_cast<const void*>(base), strides, batch, head, token));
}

// Whether the slot lies in the cache; the host cannot tell without waiting for the device.
PYRF_DEVICE bool slot_exists(int64_t slot, int slots) { return slot >= 0 && slot < slots; }

}  // namespace pyrf
