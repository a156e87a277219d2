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

template <class T>
PYRF_DEVICE float square_sum(uint4 words) {
  float x[kVector];
  unpack<T>(words, x);
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
  a = row_sum<32>(a);
  b = row_sum<32>(b);
  if (lane == 0) {
    ptx::store_shared(sums_a + warp * sizeof(float), ptx::float_bits(a));
    ptx::store_shared(sums_b + warp * sizeof(float), ptx::float_bits(b));
  }
  ptx::sync_threads();
  const bool has_sum = lane < warps;
  a = row_sum<32>(has_sum ? ptx::bits_float(ptx::load_shared(sums_a + lane * sizeof(float))) : 0.0f);
  b = row_sum<32>(has_sum ? ptx::bits_float(ptx::load_shared(sums_b + lane * sizeof(float))) : 0.0f);
}

// x * scale * weight, turned by the token's table.
template <class T>
PYRF_DEVICE void norm_and_turn(float (&x)[kVector], uint4 words, float scale, const void* weights,
                               const float (&rope)[kVector]) {
  float weight[kVector];
  unpack<T>(words, x);
  unpack<T>(ptx::load16(weights), weight);
#pragma unroll
  for (int i = 0; i < kVector; ++i) x[i] = x[i] * scale * weight[i];
#pragma unroll
  for (int i = 0; i < kVector; i += 2) turn_pair(x[i], x[i + 1], rope[i], rope[i + 1]);
}

// The same numbers in the elements of the cache.
template <class T, class Cache>
PYRF_DEVICE Words<Cache> convert(uint4 words) {
  if constexpr (std::is_same_v<T, Cache>) {
    return words;
  } else {
    float x[kVector];
    unpack<T>(words, x);
    return pack<Cache>(x);
  }
}

// Grid: (tokens, batch). Threads: one for 8 channels, rounded up to whole warps; two blocks of the widest
// rows share a multiprocessor, so that one loads while the other stores. What is done with is stored before
// more is loaded, which keeps the registers within that bound.
template <class T, int kHeadDim, class Cache>
__global__ void __launch_bounds__(kNormMaxThreads, 2) norm_rope_append_kernel(const NormRopeParams params) {
  const int token = blockIdx.x, batch = blockIdx.y;
  const int channel = threadIdx.x * kVector;
  const int head = channel / kHeadDim, within = channel % kHeadDim;
  const bool active = head < params.heads;
  const int64_t slot = ptx::load_index(params.slot);
  const bool appends = active && slot_exists(slot, params.slots);
  const int place = appends ? static_cast<int>(slot) * params.tokens + token : -1;  // in the cache

  uint4 q_words{}, k_words{};
  if (active) {
    q_words = ptx::load16(at<T>(params.q, params.q_strides, batch, head, token) + within);
    k_words = ptx::load16(at<T>(params.k, params.k_strides, batch, head, token) + within);
  }
  if (place >= 0) {
    const uint4 v_words = ptx::load16(at<T>(params.v, params.v_strides, batch, head, token) + within);
    store_words<Cache>(at<Cache>(params.values, params.values_strides, batch, head, place) + within,
                       convert<T, Cache>(v_words));
  }
  float q_sum = square_sum<T>(q_words), k_sum = square_sum<T>(k_words);
  block_sum(q_sum, k_sum);
  if (!active) return;

  const float dim = static_cast<float>(params.heads * kHeadDim);
  const float q_scale = ptx::rsqrt(q_sum / dim + params.eps), k_scale = ptx::rsqrt(k_sum / dim + params.eps);
  const uint16_t* norm_q = static_cast<const uint16_t*>(params.norm_q) + channel;
  const uint16_t* norm_k = static_cast<const uint16_t*>(params.norm_k) + channel;
  const int64_t row = (static_cast<int64_t>(batch) * params.tokens + token) * params.heads + head;
  float rope[kVector], x[kVector];  // cosines and sines of four pairs, and what they turn
  load_floats(params.rope + token * kHeadDim + within, rope);
  norm_and_turn<T>(x, q_words, q_scale, norm_q, rope);
  ptx::store16(static_cast<uint16_t*>(params.q_out) + row * kHeadDim + within, pack<T>(x));
  if (place < 0) return;
  norm_and_turn<T>(x, k_words, k_scale, norm_k, rope);
  store_words<Cache>(at<Cache>(params.keys, params.keys_strides, batch, head, place) + within,
                     pack<Cache>(x));
}

}  // namespace pyrf
