// RMS norm over all channels of q and k, rotation, and the write of k and v into their slot. Bound by memory:
// a block is one token, a thread 8 of its channels in q, k and v, and each byte moves once.
#pragma once

#include "elements.cuh"

namespace pyrf {

inline constexpr int kNormMaxDim = 5120;
inline constexpr int kNormMaxThreads = kNormMaxDim / kVector;
inline constexpr int kNormMaxWarps = kNormMaxThreads / 32;
inline constexpr int kNormSharedBytes = 2 * kNormMaxWarps * sizeof(float);
static_assert(kNormMaxWarps <= 32, "one warp adds the sums of all warps");

PYRF_DEVICE float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += ptx::shuffle_xor(x, lanes);
  return x;
}

PYRF_DEVICE float square_sum(const float (&x)[kVector]) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum = fmaf(x[i], x[i], sum);
  return sum;
}

// The sums of a and b over the block; every thread must call.
PYRF_DEVICE void block_sum(float& a, float& b) {
  const ptx::Shared sums_a = ptx::shared_memory();
  const ptx::Shared sums_b = sums_a + kNormMaxWarps * sizeof(float);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  a = warp_sum(a);
  b = warp_sum(b);
  if (lane == 0) {
    ptx::store_shared(sums_a + warp * sizeof(float), ptx::float_bits(a));
    ptx::store_shared(sums_b + warp * sizeof(float), ptx::float_bits(b));
  }
  ptx::sync_threads();
  const bool has_sum = lane < warps;
  a = warp_sum(has_sum ? ptx::bits_float(ptx::load_shared(sums_a + lane * sizeof(float))) : 0.0f);
  b = warp_sum(has_sum ? ptx::bits_float(ptx::load_shared(sums_b + lane * sizeof(float))) : 0.0f);
}

// x * scale * weight, turned by the token's table.
template <class T>
PYRF_DEVICE uint4 norm_and_turn(float (&x)[kVector], float scale, uint4 weight_words,
                                const float (&rope)[kVector]) {
  float weight[kVector];
  unpack<T>(weight_words, weight);
#pragma unroll
  for (int i = 0; i < kVector; ++i) x[i] = x[i] * scale * weight[i];
#pragma unroll
  for (int i = 0; i < kVector; i += 2) turn_pair(x[i], x[i + 1], rope[i], rope[i + 1]);
  return pack<T>(x);
}

// Cosines and sines of four pairs.
PYRF_DEVICE void load_rope(const float* table, float (&rope)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; i += 4) {
    const uint4 words = ptx::load16(table + i);
    rope[i] = ptx::bits_float(words.x);
    rope[i + 1] = ptx::bits_float(words.y);
    rope[i + 2] = ptx::bits_float(words.z);
    rope[i + 3] = ptx::bits_float(words.w);
  }
}

// Grid: (tokens, batch). Threads: one for 8 channels, rounded up to whole warps.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kNormMaxThreads) norm_rope_append_kernel(const NormRopeParams params) {
  const int token = blockIdx.x, batch = blockIdx.y;
  const int channel = threadIdx.x * kVector;
  const int head = channel / kHeadDim, within = channel % kHeadDim;
  const bool active = head < params.heads;

  uint4 q_words{}, k_words{}, v_words{};
  if (active) {
    q_words = ptx::load16(at(params.q, params.q_strides, batch, head, token) + within);
    k_words = ptx::load16(at(params.k, params.k_strides, batch, head, token) + within);
    v_words = ptx::load16(at(params.v, params.v_strides, batch, head, token) + within);
  }
  float q[kVector], k[kVector];
  unpack<T>(q_words, q);
  unpack<T>(k_words, k);
  float q_sum = square_sum(q), k_sum = square_sum(k);
  block_sum(q_sum, k_sum);
  if (!active) return;

  const float dim = static_cast<float>(params.heads * kHeadDim);
  float rope[kVector];
  load_rope(params.rope + token * kHeadDim + within, rope);
  const uint4 q_weight = ptx::load16(static_cast<const uint16_t*>(params.norm_q) + channel);
  const uint4 k_weight = ptx::load16(static_cast<const uint16_t*>(params.norm_k) + channel);
  q_words = norm_and_turn<T>(q, ptx::rsqrt(q_sum / dim + params.eps), q_weight, rope);
  k_words = norm_and_turn<T>(k, ptx::rsqrt(k_sum / dim + params.eps), k_weight, rope);

  const int64_t row = (static_cast<int64_t>(batch) * params.heads + head) * params.tokens + token;
  ptx::store16(static_cast<uint16_t*>(params.q_out) + row * kHeadDim + within, q_words);
  const int64_t slot = ptx::load_index(params.slot);
  if (!slot_exists(slot, params.slots)) return;
  const int place = static_cast<int>(slot) * params.tokens + token;
  ptx::store16(at(params.keys, params.keys_strides, batch, head, place) + within, k_words);
  ptx::store16(at(params.values, params.values_strides, batch, head, place) + within, v_words);
}

}  // namespace pyrf
