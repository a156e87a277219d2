// The EMA-Sink of a layer: sink <- (1 - w) R sink + w evicted, where R turns the time pairs of keys by one
// chunk and is the identity for values. Bound by memory: a thread owns 8 channels of one token and reads and
// writes each of its bytes once.
#pragma once

#include <cmath>

#include "elements.cuh"

namespace pyrf {

inline constexpr int kEmaThreads = 256;

// The float32 behind a sink element, of which the cache holds a rounded copy. Beside fp16 and e4m3 it is kept
// whole, as these have too few exponent bits to be its upper half.
template <class T>
struct Master {
  static constexpr int kBytes = 4;

  static PYRF_DEVICE void load(const void* master, uint4, float (&x)[kVector]) {
    load_floats(static_cast<const float*>(master), x);
  }

  // Returns the slot's new words.
  static PYRF_DEVICE Words<T> store(void* master, const float (&x)[kVector]) {
    float* to = static_cast<float*>(master);
#pragma unroll
    for (int i = 0; i < kVector; i += 4) {
      ptx::store16(to + i, make_uint4(ptx::float_bits(x[i]), ptx::float_bits(x[i + 1]),
                                      ptx::float_bits(x[i + 2]), ptx::float_bits(x[i + 3])));
    }
    return pack<T>(x);
  }
};

// Beside bf16: the lower half of the float32. The slot is its upper half, rounded half up, so that the two
// halves give back every bit.
template <>
struct Master<Bf16> {
  static constexpr int kBytes = 2;

  static PYRF_DEVICE uint32_t join(uint32_t high, uint32_t low) { return ((high - (low >> 15)) << 16) | low; }

  static PYRF_DEVICE void load(const void* master, uint4 slot, float (&x)[kVector]) {
    const uint4 residual = ptx::load16(master);
    const uint32_t high[4] = {slot.x, slot.y, slot.z, slot.w};
    const uint32_t low[4] = {residual.x, residual.y, residual.z, residual.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = ptx::bits_float(join(high[i] & 0xffff, low[i] & 0xffff));
      x[2 * i + 1] = ptx::bits_float(join(high[i] >> 16, low[i] >> 16));
    }
  }

  // Returns the slot's new words.
  static PYRF_DEVICE uint4 store(void* master, const float (&x)[kVector]) {
    uint32_t high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t even = ptx::float_bits(x[2 * i]);
      const uint32_t odd = ptx::float_bits(x[2 * i + 1]);
      high[i] = ((even + 0x8000) >> 16) | ((odd + 0x8000) & 0xffff0000u);
      low[i] = (even & 0xffff) | (odd << 16);
    }
    ptx::store16(master, make_uint4(low[0], low[1], low[2], low[3]));
    return make_uint4(high[0], high[1], high[2], high[3]);
  }
};

// From `from` to `to` by `weight`, from the nearer end: exact at both, like torch.lerp.
PYRF_DEVICE float blend(float from, float to, float weight) {
  return weight < 0.5f ? fmaf(weight, to - from, from) : fmaf(weight - 1.0f, to - from, to);
}

// Grid: (vectors of a head's slot / threads, batch * heads, keys and values).
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kEmaThreads) ema_sink_update_kernel(const EmaSinkParams params) {
  constexpr int kVectors = kHeadDim / kVector;  // of a token
  const int index = blockIdx.x * kEmaThreads + threadIdx.x;
  const int token = index / kVectors;
  const int64_t slot = ptx::load_index(params.slot);
  if (token >= params.tokens || !slot_exists(slot, params.slots)) return;

  const int batch = blockIdx.y / params.heads;
  const int head = blockIdx.y % params.heads;
  const int channel = index % kVectors * kVector;
  const bool is_keys = blockIdx.z == 0;
  const EmaSinkParams::Half& half = params.halves[is_keys ? 0 : 1];
  Word<T>* sink = at<T>(half.cache, half.cache_strides, batch, head, token) + channel;
  const Word<T>* leaving = sink + slot * params.tokens * half.cache_strides.token;
  char* master = static_cast<char*>(half.master) +
                 Master<T>::kBytes * (batch * half.master_strides.batch + head * half.master_strides.head +
                                      token * half.master_strides.token + channel);

  float exact[kVector], evicted[kVector];
  const Words<T> evicted_words = load_words<T>(leaving);
  Master<T>::load(master, std::is_same_v<T, Bf16> ? ptx::load16(sink) : uint4{}, exact);
  unpack<T>(evicted_words, evicted);
  if (is_keys) {
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      const int pair = channel / 2 + i;
      if (pair < params.time_pairs) {
        const float2 turn = ptx::load_pair(params.turn + 2 * pair);
        turn_pair(exact[2 * i], exact[2 * i + 1], turn.x, turn.y);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) exact[i] = blend(exact[i], evicted[i], params.weight);
  store_words<T>(sink, Master<T>::store(master, exact));
}

}  // namespace pyrf
