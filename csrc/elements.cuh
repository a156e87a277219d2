// Eight channels, the unit of every access to global memory, as floats; and what the kernels do to them.
#pragma once

#include "params.h"
#include "ptx.h"

namespace pyrf {

inline constexpr int kVector = 8;  // elements in 16 bytes, or of e4m3 in 8

template <class T>
inline constexpr bool kIsE4m3 = std::is_same_v<T, E4m3>;

// What an element, and eight of them, are in memory.
template <class T>
using Word = std::conditional_t<kIsE4m3<T>, uint8_t, uint16_t>;
template <class T>
using Words = std::conditional_t<kIsE4m3<T>, uint2, uint4>;

template <class T>
PYRF_DEVICE void unpack(Words<T> words, float (&x)[kVector]) {
  if constexpr (kIsE4m3<T>) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      x[i] = ptx::widen_e4m3((i < 4 ? words.x : words.y) >> i % 4 * 8 & 0xff);
    }
  } else {
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = ptx::unpack<T>(word[i]);
      x[2 * i] = pair.x;
      x[2 * i + 1] = pair.y;
    }
  }
}

template <class T>
PYRF_DEVICE Words<T> pack(const float (&x)[kVector]) {
  if constexpr (kIsE4m3<T>) {
    return make_uint2(ptx::pack_e4m3(x[0], x[1]) | ptx::pack_e4m3(x[2], x[3]) << 16,
                      ptx::pack_e4m3(x[4], x[5]) | ptx::pack_e4m3(x[6], x[7]) << 16);
  } else {
    return make_uint4(ptx::pack<T>(x[0], x[1]), ptx::pack<T>(x[2], x[3]), ptx::pack<T>(x[4], x[5]),
                      ptx::pack<T>(x[6], x[7]));
  }
}

template <class T>
PYRF_DEVICE Words<T> load_words(const Word<T>* from) {
  if constexpr (kIsE4m3<T>) {
    return ptx::load8(from);
  } else {
    return ptx::load16(from);
  }
}

template <class T>
PYRF_DEVICE void store_words(Word<T>* to, Words<T> words) {
  if constexpr (kIsE4m3<T>) {
    ptx::store8(to, words);
  } else {
    ptx::store16(to, words);
  }
}

PYRF_DEVICE void load_floats(const float* from, float (&x)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; i += 4) {
    const uint4 words = ptx::load16(from + i);
    x[i] = ptx::bits_float(words.x);
    x[i + 1] = ptx::bits_float(words.y);
    x[i + 2] = ptx::bits_float(words.z);
    x[i + 3] = ptx::bits_float(words.w);
  }
}

// The sum over the lanes of a row, 32 or 16; every lane of the warp must call.
template <int kLanes>
PYRF_DEVICE float row_sum(float x) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) x += ptx::shuffle_xor(x, lanes);
  return x;
}

// The adjacent channels 2i and 2i + 1 as a complex number, times cosine + i sine.
PYRF_DEVICE void turn_pair(float& even, float& odd, float cosine, float sine) {
  const float turned = even * cosine - odd * sine;
  odd = even * sine + odd * cosine;
  even = turned;
}

// Elements are addressed as the words they are; arithmetic is on floats only.
template <class T>
PYRF_DEVICE const Word<T>* at(const void* base, const Strides& strides, int batch, int head, int token) {
  return static_cast<const Word<T>*>(base) + batch * strides.batch + head * strides.head +
         token * strides.token;
}

template <class T>
PYRF_DEVICE Word<T>* at(void* base, const Strides& strides, int batch, int head, int token) {
  return const_cast<Word<T>*>(at<T>(static_cast<const void*>(base), strides, batch, head, token));
}

// Whether the slot lies in the cache; the host cannot tell without waiting for the device.
PYRF_DEVICE bool slot_exists(int64_t slot, int slots) { return slot >= 0 && slot < slots; }

}  // namespace pyrf
