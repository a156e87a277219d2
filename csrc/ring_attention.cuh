// Attention of a chunk to the cache, with products of 16-bit elements; see ring_block.cuh.
#pragma once

#include "ring_block.cuh"

namespace pyrf {

template <class T, int kHeadDim>
struct RingRows : RingState<T, kHeadDim> {
  using State = RingState<T, kHeadDim>;
  using typename State::Scores;
  using typename State::Tile;
  using State::kRowTiles;
  using State::out;

  // With the first group of copies.
  static PYRF_DEVICE void fetch_queries(ptx::Shared rows, const RingAttentionParams& params, int batch,
                                        int head, int first) {
    Tile::template copy<Tile::kQueries>(rows, at<T>(params.q, params.q_strides, batch, head, first),
                                        params.q_strides.token, params.queries - first);
  }

  // out += weights V. The result fragment of two 8-key columns is the operand fragment of 16 keys.
  PYRF_DEVICE void gather(const Scores& weights, ptx::Shared values) {
    const int lane = threadIdx.x % 32;
    const ptx::Shared v_row = values + Tile::offset(lane % 16, lane / 16);
#pragma unroll
    for (int n = 0; n < Tile::kKeys / 16; ++n) {
      uint32_t w[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        const float (&left)[4] = weights[m][2 * n];
        const float (&right)[4] = weights[m][2 * n + 1];
        w[m][0] = ptx::pack<T>(left[0], left[1]);
        w[m][1] = ptx::pack<T>(left[2], left[3]);
        w[m][2] = ptx::pack<T>(right[0], right[1]);
        w[m][3] = ptx::pack<T>(right[2], right[3]);
      }
#pragma unroll
      for (int d = 0; d < kHeadDim / 16; ++d) {
        uint32_t v[4];
        ptx::load_matrices_transposed(v, Tile::below(Tile::right(v_row, 2 * d), n));
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          ptx::multiply_add<T>(out[m][2 * d], w[m], v[0], v[1]);
          ptx::multiply_add<T>(out[m][2 * d + 1], w[m], v[2], v[3]);
        }
      }
    }
  }

  // Divide by the sum of weights and leave the rows in shared memory, where whole rows can be read.
  PYRF_DEVICE void normalise(ptx::Shared rows) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float scale = 1.0f / this->total(m, half);
        const int row = m * 16 + half * 8 + lane / 4;
#pragma unroll
        for (int d = 0; d < kHeadDim / 8; ++d) {
          ptx::store_shared(rows + Tile::offset(row, d) + lane % 4 * 4,
                            ptx::pack<T>(out[m][d][2 * half] * scale, out[m][d][2 * half + 1] * scale));
        }
      }
    }
  }

  // A warp's queries are its own, so its output may take their place once all its lanes have read them.
  PYRF_DEVICE void store(const RingAttentionParams& params, int batch, int head, int first_query,
                         int warp_row, ptx::Shared rows) {
    ptx::sync_warp();
    normalise(rows);
    ptx::sync_warp();
    constexpr int kStep = 32 / Tile::kChunks;
    const int lane = threadIdx.x % 32, chunk = lane % Tile::kChunks;
#pragma unroll
    for (int i = 0; i < Tile::kWarpQueries; i += kStep) {
      const int row = i + lane / Tile::kChunks, query = warp_row + row;
      if (query >= params.queries - first_query) continue;
      const int64_t place =
          (static_cast<int64_t>(batch) * params.queries + first_query + query) * params.heads + head;
      ptx::store16(static_cast<uint16_t*>(params.out) + place * kHeadDim + chunk * kVector,
                   ptx::load_shared16(rows + Tile::offset(row, chunk)));
    }
  }
};

template <class T, int kHeadDim>
__global__ void __launch_bounds__(RingTile<T, kHeadDim>::kThreads)
    ring_attention_kernel(const RingAttentionParams params) {
  ring_attention_block<RingRows<T, kHeadDim>>(params);
}

}  // namespace pyrf
