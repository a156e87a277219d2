// Attention of a chunk to the valid prefix of the cache, without a mask, in the manner of FlashAttention-2
// (arXiv 2307.08691): queries stay in shared memory, tiles of keys and values stream through a double
// buffer, and the softmax is rescaled as larger scores appear.
//
// Fragments follow mma.m16n8k16: of a 16x8 result, lane l holds column 2 (l % 4) and the next, of row l / 4
// in elements 0 and 1, and of row l / 4 + 8 in elements 2 and 3.
#pragma once

#include <cmath>

#include "elements.cuh"

namespace pyrf {

template <int kHeadDim>
struct RingTile {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2;  // of 16 queries, a warp; two halve the shared memory read a query
  static constexpr int kWarpQueries = 16 * kRowTiles;
  static constexpr int kQueries = kWarps * kWarpQueries;
  static constexpr int kKeys = kHeadDim == 64 ? 64 : 48;  // more would not fit the registers
  static constexpr int kRowBytes = 2 * kHeadDim;
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kQueryBytes = kQueries * kRowBytes;
  static constexpr int kKeyBytes = kKeys * kRowBytes;
  static constexpr int kSharedBytes = kQueryBytes + 4 * kKeyBytes;

  static_assert(kChunks % 8 == 0, "the swizzle permutes 8 chunks of a row");
  static_assert(kThreads % kChunks == 0, "a thread always copies the same column of a row");
  static_assert(2 * (kSharedBytes + 1024) <= 164 * 1024, "two blocks share a multiprocessor of sm_80");

  // Offset of 16 bytes of a row. The XOR spreads a column over all banks, for ldmatrix reads columns.
  static PYRF_DEVICE uint32_t offset(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row % 8)) << 4);
  }

  // The same place, 16 `columns` to the right. An XOR moves it, as buffers start on whole rows.
  static PYRF_DEVICE ptx::Shared right(ptx::Shared address, int columns) { return address ^ (columns << 5); }

  // The same place, 16 `rows` below.
  static PYRF_DEVICE ptx::Shared below(ptx::Shared address, int rows) {
    return address + rows * 16 * kRowBytes;
  }

  // Start copying rows of global memory, `valid` of them real and the others zeros.
  template <int kRows>
  static PYRF_DEVICE void copy(ptx::Shared to, const uint16_t* from, int64_t stride, int valid) {
    constexpr int kStep = kThreads / kChunks;
    const int first = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
    from += first * stride + chunk * kVector;
#pragma unroll
    for (int i = 0; i < kRows; i += kStep) {
      ptx::copy_async16(to + offset(first + i, chunk), from, first + i < valid);
      from += kStep * stride;
    }
  }
};

// A warp's state: its queries' running softmax and unnormalised output.
template <class T, int kHeadDim>
struct RingState {
  using Tile = RingTile<kHeadDim>;
  static constexpr int kRowTiles = Tile::kRowTiles;
  using Scores = float[kRowTiles][Tile::kKeys / 8][4];

  float out[kRowTiles][kHeadDim / 8][4];
  float largest[kRowTiles][2];  // score so far, of rows l / 4 and l / 4 + 8
  float sum[kRowTiles][2];      // of this lane's columns only, until `normalise`

  PYRF_DEVICE void clear() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int d = 0; d < kHeadDim / 8; ++d) out[m][d][0] = out[m][d][1] = out[m][d][2] = out[m][d][3] = 0.0f;
      largest[m][0] = largest[m][1] = -INFINITY;
      sum[m][0] = sum[m][1] = 0.0f;
    }
  }

  // scores = Q K^T for a tile of keys.
  static PYRF_DEVICE void score(Scores& scores, ptx::Shared queries, ptx::Shared keys) {
    const int lane = threadIdx.x % 32;
    const ptx::Shared q_row = queries + Tile::offset(lane % 16, lane / 16);
    const ptx::Shared k_row = keys + Tile::offset(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < Tile::kKeys / 8; ++n) {
        scores[m][n][0] = scores[m][n][1] = scores[m][n][2] = scores[m][n][3] = 0.0f;
      }
    }
#pragma unroll
    for (int d = 0; d < kHeadDim / 16; ++d) {
      uint32_t q[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        ptx::load_matrices(q[m], Tile::below(Tile::right(q_row, d), m));
      }
#pragma unroll
      for (int n = 0; n < Tile::kKeys / 16; ++n) {
        uint32_t k[4];
        ptx::load_matrices(k, Tile::below(Tile::right(k_row, d), n));
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          ptx::multiply_add<T>(scores[m][2 * n], q[m], k[0], k[1]);
          ptx::multiply_add<T>(scores[m][2 * n + 1], q[m], k[2], k[3]);
        }
      }
    }
  }

  // Keys past the valid ones get no weight.
  static PYRF_DEVICE void mask(Scores& scores, int valid) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < Tile::kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (n * 8 + column + i % 2 < valid) continue;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) scores[m][n][i] = -INFINITY;
      }
    }
  }

  // Scores to weights, and what was summed so far to the scale of the largest score so far.
  PYRF_DEVICE void rescale(Scores& scores, float scale_log2) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        float peak = largest[m][row];
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n) {
          peak = fmaxf(peak, fmaxf(scores[m][n][2 * row], scores[m][n][2 * row + 1]));
        }
        peak = fmaxf(peak, ptx::shuffle_xor(peak, 1));
        peak = fmaxf(peak, ptx::shuffle_xor(peak, 2));
        const float shift = -peak * scale_log2;
        const float shrink = ptx::exp2(fmaf(largest[m][row], scale_log2, shift));
        largest[m][row] = peak;
        sum[m][row] *= shrink;
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n) {
#pragma unroll
          for (int i = 2 * row; i < 2 * row + 2; ++i) {
            scores[m][n][i] = ptx::exp2(fmaf(scores[m][n][i], scale_log2, shift));
            sum[m][row] += scores[m][n][i];
          }
        }
#pragma unroll
        for (int d = 0; d < kHeadDim / 8; ++d) {
          out[m][d][2 * row] *= shrink;
          out[m][d][2 * row + 1] *= shrink;
        }
      }
    }
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
        ptx::load_matrices_transposed(v, Tile::below(Tile::right(v_row, d), n));
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
        float total = sum[m][half];
        total += ptx::shuffle_xor(total, 1);
        total += ptx::shuffle_xor(total, 2);
        const float scale = 1.0f / total;
        const int row = m * 16 + half * 8 + lane / 4;
#pragma unroll
        for (int d = 0; d < kHeadDim / 8; ++d) {
          ptx::store_shared(rows + Tile::offset(row, d) + lane % 4 * 4,
                            ptx::pack<T>(out[m][d][2 * half] * scale, out[m][d][2 * half + 1] * scale));
        }
      }
    }
  }
};

// What a block does. Grid: (tiles of queries, heads, batch).
template <class T, int kHeadDim>
PYRF_DEVICE void ring_attention_block(const RingAttentionParams& params) {
  using Tile = RingTile<kHeadDim>;
  const int head = blockIdx.y, batch = blockIdx.z;
  const int first_query = blockIdx.x * Tile::kQueries;
  const int queries = params.queries - first_query;  // from here on; more than a tile, or its tail
  const ptx::Shared query_rows = ptx::shared_memory();
  const ptx::Shared key_rows = query_rows + Tile::kQueryBytes;
  const ptx::Shared value_rows = key_rows + 2 * Tile::kKeyBytes;
  const uint16_t* keys = at(params.keys, params.keys_strides, batch, head, 0);
  const uint16_t* values = at(params.values, params.values_strides, batch, head, 0);

  const auto copy_tile = [&](int tile) {
    const int first = tile * Tile::kKeys, buffer = tile % 2 * Tile::kKeyBytes;
    const int64_t key_stride = params.keys_strides.token, value_stride = params.values_strides.token;
    Tile::template copy<Tile::kKeys>(key_rows + buffer, keys + first * key_stride, key_stride,
                                     params.length - first);
    Tile::template copy<Tile::kKeys>(value_rows + buffer, values + first * value_stride, value_stride,
                                     params.length - first);
    ptx::copy_async_commit();
  };

  // The first group brings the queries too.
  Tile::template copy<Tile::kQueries>(query_rows, at(params.q, params.q_strides, batch, head, first_query),
                                      params.q_strides.token, queries);
  copy_tile(0);

  const int warp_row = threadIdx.x / 32 * Tile::kWarpQueries;
  const ptx::Shared warp_rows = query_rows + warp_row * Tile::kRowBytes;
  RingState<T, kHeadDim> state;
  state.clear();
  const int tiles = (params.length + Tile::kKeys - 1) / Tile::kKeys;
  for (int tile = 0; tile < tiles; ++tile) {
    ptx::copy_async_wait<0>();
    // Everyone's part of this tile has arrived, and everyone is done with the buffer of the tile before.
    ptx::sync_threads();
    if (tile + 1 < tiles) copy_tile(tile + 1);

    const int buffer = tile % 2 * Tile::kKeyBytes;
    typename RingState<T, kHeadDim>::Scores scores;
    state.score(scores, warp_rows, key_rows + buffer);
    const int valid = params.length - tile * Tile::kKeys;
    if (valid < Tile::kKeys) state.mask(scores, valid);
    state.rescale(scores, params.scale_log2);
    state.gather(scores, value_rows + buffer);
  }

  // A warp's queries are its own, so its output may take their place once all its lanes have read them.
  ptx::sync_warp();
  state.normalise(warp_rows);
  ptx::sync_warp();
  constexpr int kStep = 32 / Tile::kChunks;
  const int lane = threadIdx.x % 32, chunk = lane % Tile::kChunks;
#pragma unroll
  for (int i = 0; i < Tile::kWarpQueries; i += kStep) {
    const int row = i + lane / Tile::kChunks, query = warp_row + row;
    if (query >= queries) continue;
    const int64_t place =
        (static_cast<int64_t>(batch) * params.queries + first_query + query) * params.heads + head;
    ptx::store16(static_cast<uint16_t*>(params.out) + place * kHeadDim + chunk * kVector,
                 ptx::load_shared16(warp_rows + Tile::offset(row, chunk)));
  }
}

template <class T, int kHeadDim>
__global__ void __launch_bounds__(RingTile<kHeadDim>::kThreads)
    ring_attention_kernel(const RingAttentionParams params) {
  ring_attention_block<T, kHeadDim>(params);
}

}  // namespace pyrf
