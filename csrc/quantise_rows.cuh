// Rows of 16-bit numbers, or their GELU, to e4m3 with a scale for each, in one pass. Bound by memory: a block
// is one row, which its threads hold in registers in its 16 bits, and each byte moves once.
#pragma once

#include "row_scale.cuh"

namespace pyrf {

inline constexpr int kQuantiseThreads = 256;
inline constexpr int kQuantiseWarps = kQuantiseThreads / 32;
inline constexpr int kQuantiseSharedBytes = kQuantiseWarps * sizeof(uint32_t);

// The largest over the block; every thread must call.
PYRF_DEVICE uint32_t block_largest(uint32_t x) {
  const ptx::Shared largest = ptx::shared_memory();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  x = row_largest<32>(x);
  if (lane == 0) ptx::store_shared(largest + warp * sizeof(uint32_t), x);
  ptx::sync_threads();
  return row_largest<kQuantiseWarps>(
      ptx::load_shared(largest + lane % kQuantiseWarps * sizeof(uint32_t)));
}

// GELU in its tanh form: (1 + tanh u) / 2 is 1 / (1 + exp(-2u)), with u = sqrt(2 / pi) (x + 0.044715 x^3).
PYRF_DEVICE float gelu(float x) {
  constexpr float kLinear = static_cast<float>(-2.0 * 0.7978845608028654 * kLog2E);
  constexpr float kCubic = static_cast<float>(-2.0 * 0.7978845608028654 * kLog2E * 0.044715);
  return x * ptx::reciprocal(1.0f + ptx::exp2(x * fmaf(kCubic * x, x, kLinear)));
}

// Of eight numbers, rounded.
template <class T>
PYRF_DEVICE uint4 gelu(uint4 words) {
  float x[kVector];
  unpack<T>(words, x);
#pragma unroll
  for (int i = 0; i < kVector; ++i) x[i] = gelu(x[i]);
  return pack<T>(x);
}

// Grid: rows. What is scaled is the GELU as it is rounded.
template <class T, int kMaxDim>
__global__ void __launch_bounds__(kQuantiseThreads) quantise_rows_kernel(const QuantiseRowsParams params) {
  constexpr int kVectors = kMaxDim / kVector / kQuantiseThreads;
  static_assert(kVectors * kVector * kQuantiseThreads == kMaxDim, "shared evenly");
  const int64_t start = static_cast<int64_t>(blockIdx.x) * params.vectors;
  uint4 words[kVectors];
  uint32_t largest = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = threadIdx.x + v * kQuantiseThreads;
    words[v] = vector < params.vectors ? ptx::load16(static_cast<const uint4*>(params.x) + start + vector)
                                       : uint4{};
  }
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (params.gelu) words[v] = gelu<T>(words[v]);
    largest = larger(largest, largest_size(words[v]));
  }
  const RowScale row = RowScale::of<T>(block_largest(largest));
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = threadIdx.x + v * kQuantiseThreads;
    if (vector >= params.vectors) continue;
    ptx::store8(static_cast<uint2*>(params.rows) + start + vector, row.rounded<T>(words[v]));
  }
  if (threadIdx.x == 0) ptx::store_float(params.scales + blockIdx.x, row.scale);
}

}  // namespace pyrf
