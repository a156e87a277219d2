// Attention of a chunk to a cache of e4m3, with products of e4m3; see ring_block.cuh. Queries and the
// softmax's weights are rounded on the way. For sm_89 and newer; ptxas makes one such product of two of
// float16 where the architecture has none (sm_90a, sm_100).
#pragma once

#include "ring_block.cuh"

namespace pyrf {

// T is that of queries and of the result.
template <class T, int kHeadDim>
struct RingE4m3Rows : RingState<E4m3, kHeadDim> {
  using State = RingState<E4m3, kHeadDim>;
  using typename State::Scores;
  using typename State::Tile;
  using State::kRowTiles;
  using State::out;

  // At once, as they change on the way: a thread rounds 16 channels of a row at a time.
  static PYRF_DEVICE void fetch_queries(ptx::Shared rows, const RingAttentionParams& params, int batch,
                                        int head, int first) {
    constexpr int kStep = Tile::kThreads / Tile::kChunks;
    const int chunk = threadIdx.x % Tile::kChunks;
#pragma unroll
    for (int i = 0; i < Tile::kQueries; i += kStep) {
      const int row = i + threadIdx.x / Tile::kChunks;
      uint2 words[2] = {};
      if (first + row < params.queries) {
        const uint16_t* from = at<T>(params.q, params.q_strides, batch, head, first + row);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float x[kVector];
          unpack<T>(ptx::load16(from + (2 * chunk + half) * kVector), x);
          words[half] = pack<E4m3>(x);
        }
      }
      ptx::store_shared16(rows + Tile::offset(row, chunk),
                          make_uint4(words[0].x, words[0].y, words[1].x, words[1].y));
    }
  }

  static PYRF_DEVICE uint32_t pack_four(float a, float b, float c, float d) {
    return ptx::pack_e4m3(a, b) | ptx::pack_e4m3(c, d) << 16;
  }

  // out += weights V, 32 keys at a time. ldmatrix turns pairs of channels, so that a lane holds two keys of
  // a pair; those of two 8-key columns, taken apart, are four keys of the even channel and of the odd one.
  // The weights of these four keys are what the lane holds of the same two columns of scores. Columns of
  // `out` are thus the even channels of 16, and then the odd ones.
  PYRF_DEVICE void gather(const Scores& weights, ptx::Shared values) {
    constexpr uint32_t kEven = 0x6420, kOdd = 0x7531;
    const ptx::Shared v_row = values + Tile::offset(threadIdx.x % 32, 0);
#pragma unroll
    for (int n = 0; n < Tile::kKeys / 32; ++n) {
      uint32_t w[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        const auto& columns = weights[m];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float (&left)[4] = columns[4 * n + i / 2 * 2];
          const float (&right)[4] = columns[4 * n + i / 2 * 2 + 1];
          const int row = i % 2 * 2;
          w[m][i] = pack_four(left[row], left[row + 1], right[row], right[row + 1]);
        }
      }
#pragma unroll
      for (int d = 0; d < Tile::kChunks; ++d) {
        uint32_t v[4];
        ptx::load_matrices_transposed(v, Tile::below(Tile::right(v_row, d), 2 * n));
        const uint32_t even[2] = {ptx::permute(v[0], v[1], kEven), ptx::permute(v[2], v[3], kEven)};
        const uint32_t odd[2] = {ptx::permute(v[0], v[1], kOdd), ptx::permute(v[2], v[3], kOdd)};
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          ptx::multiply_add<E4m3>(out[m][2 * d], w[m], even[0], even[1]);
          ptx::multiply_add<E4m3>(out[m][2 * d + 1], w[m], odd[0], odd[1]);
        }
      }
    }
  }

  // Rows are divided by their sums of weights. Four lanes store 32 bytes of a row.
  PYRF_DEVICE void store(const RingAttentionParams& params, int batch, int head, int first_query,
                         int warp_row, ptx::Shared) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float scale = 1.0f / this->total(m, half);
        const int query = warp_row + m * 16 + half * 8 + lane / 4;
        if (query >= params.queries - first_query) continue;
        const int64_t place =
            (static_cast<int64_t>(batch) * params.queries + first_query + query) * params.heads + head;
        uint16_t* to = static_cast<uint16_t*>(params.out) + place * kHeadDim + lane % 4 * 4;
#pragma unroll
        for (int d = 0; d < Tile::kChunks; ++d) {
          const float *even = out[m][2 * d] + 2 * half, *odd = out[m][2 * d + 1] + 2 * half;
          ptx::store8(to + d * 16, make_uint2(ptx::pack<T>(even[0] * scale, odd[0] * scale),
                                              ptx::pack<T>(even[1] * scale, odd[1] * scale)));
        }
      }
    }
  }
};

template <class T, int kHeadDim>
__global__ void __launch_bounds__(RingTile<E4m3, kHeadDim>::kThreads)
    ring_attention_e4m3_kernel(const RingAttentionParams params) {
  ring_attention_block<RingE4m3Rows<T, kHeadDim>>(params);
}

}  // namespace pyrf
