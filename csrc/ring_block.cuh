// What attention to the valid prefix of the cache does in every element type, in the manner of
// FlashAttention-2 (arXiv 2307.08691): queries stay in shared memory, tiles of keys and values stream through
// a double buffer, and the softmax is rescaled as larger scores appear. There is no mask.
//
// Fragments follow mma.m16n8k16, or m16n8k32 for e4m3, whose operands hold the same bytes: of a 16x8 result,
// lane l holds column 2 (l % 4) and the next, of row l / 4 in elements 0 and 1, and of row l / 4 + 8 in
// elements 2 and 3.
#pragma once

#include <cmath>

#include "elements.cuh"

namespace pyrf {

// T is what the products take.
template <class T, int kHeadDim>
struct RingTile {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2;  // of 16 queries, a warp; two halve the shared memory read a query
  static constexpr int kWarpQueries = 16 * kRowTiles;
  static constexpr int kQueries = kWarps * kWarpQueries;
  // More would not fit the registers; e4m3 takes 32 at a time.
  static constexpr int kKeys = kHeadDim == 64 ? 64 : kIsE4m3<T> ? 32 : 48;
  static constexpr int kRowBytes = sizeof(Word<T>) * kHeadDim;
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kQueryBytes = kQueries * kRowBytes;
  static constexpr int kKeyBytes = kKeys * kRowBytes;
  static constexpr int kSharedBytes = kQueryBytes + 4 * kKeyBytes;

  static_assert(kChunks % 8 == 0 || kChunks == 4, "the swizzle permutes 8 chunks of a row, or 4 of two");
  static_assert(kThreads % kChunks == 0, "a thread always copies the same column of a row");
  static_assert(2 * (kSharedBytes + 1024) <= 164 * 1024, "two blocks share a multiprocessor of sm_80");

  // Offset of 16 bytes of a row. The XOR spreads a column over all banks, for ldmatrix reads columns.
  static PYRF_DEVICE uint32_t offset(int row, int chunk) {
    const int turn = kChunks == 4 ? row / 2 % 4 : row % 8;
    return row * kRowBytes + ((chunk ^ turn) << 4);
  }

  // The same place, `chunks` of 16 bytes to the right. An XOR moves it, as buffers start on whole rows.
  static PYRF_DEVICE ptx::Shared right(ptx::Shared address, int chunks) { return address ^ (chunks << 4); }

  // The same place, 16 `rows` below.
  static PYRF_DEVICE ptx::Shared below(ptx::Shared address, int rows) {
    return address + rows * 16 * kRowBytes;
  }

  // Start copying rows of global memory, `valid` of them real and the others zeros.
  template <int kRows>
  static PYRF_DEVICE void copy(ptx::Shared to, const Word<T>* from, int64_t stride, int valid) {
    constexpr int kStep = kThreads / kChunks;
    const int first = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
    from += first * stride + chunk * (kHeadDim / kChunks);
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
  using Product = T;
  using Tile = RingTile<T, kHeadDim>;
  static constexpr int kChannels = kHeadDim;
  static constexpr int kRowTiles = Tile::kRowTiles;
  // Weights, 1 at most, are scaled by 2^8 where they are rounded to e4m3, so that small ones keep bits.
  static constexpr float kWeightLog2 = kIsE4m3<T> ? 8.0f : 0.0f;
  using Scores = float[kRowTiles][Tile::kKeys / 8][4];

  float out[kRowTiles][kHeadDim / 8][4];
  float largest[kRowTiles][2];  // score so far, of rows l / 4 and l / 4 + 8
  float sum[kRowTiles][2];      // of this lane's columns only, until `total`

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
    for (int d = 0; d < Tile::kChunks; d += 2) {
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
        const float shift = -peak * scale_log2, weight_shift = shift + kWeightLog2;
        const float shrink = ptx::exp2(fmaf(largest[m][row], scale_log2, shift));
        largest[m][row] = peak;
        sum[m][row] *= shrink;
#pragma unroll
        for (int n = 0; n < Tile::kKeys / 8; ++n) {
#pragma unroll
          for (int i = 2 * row; i < 2 * row + 2; ++i) {
            scores[m][n][i] = ptx::exp2(fmaf(scores[m][n][i], scale_log2, weight_shift));
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

  // The sum of a row's weights, given the half that its rows are in; every lane must call.
  PYRF_DEVICE float total(int m, int half) const {
    float total = sum[m][half];
    total += ptx::shuffle_xor(total, 1);
    return total + ptx::shuffle_xor(total, 2);
  }
};

// What a block does. Grid: (tiles of queries, heads, batch). A State is a RingState that fetches its queries,
// gathers values and stores its rows.
template <class State>
PYRF_DEVICE void ring_attention_block(const RingAttentionParams& params) {
  using Tile = typename State::Tile;
  using T = typename State::Product;
  const int head = blockIdx.y, batch = blockIdx.z;
  const int first_query = blockIdx.x * Tile::kQueries;
  const ptx::Shared query_rows = ptx::shared_memory();
  const ptx::Shared key_rows = query_rows + Tile::kQueryBytes;
  const ptx::Shared value_rows = key_rows + 2 * Tile::kKeyBytes;
  const Word<T>* keys = at<T>(params.keys, params.keys_strides, batch, head, 0);
  const Word<T>* values = at<T>(params.values, params.values_strides, batch, head, 0);

  const auto copy_tile = [&](int tile) {
    const int first = tile * Tile::kKeys, buffer = tile % 2 * Tile::kKeyBytes;
    const int64_t key_stride = params.keys_strides.token, value_stride = params.values_strides.token;
    Tile::template copy<Tile::kKeys>(key_rows + buffer, keys + first * key_stride, key_stride,
                                     params.length - first);
    Tile::template copy<Tile::kKeys>(value_rows + buffer, values + first * value_stride, value_stride,
                                     params.length - first);
    ptx::copy_async_commit();
  };

  // The queries come before the first barrier, at the latest with the first group.
  State::fetch_queries(query_rows, params, batch, head, first_query);
  copy_tile(0);

  const int warp_row = threadIdx.x / 32 * Tile::kWarpQueries;
  const ptx::Shared warp_rows = query_rows + warp_row * Tile::kRowBytes;
  State state;
  state.clear();
  const int tiles = (params.length + Tile::kKeys - 1) / Tile::kKeys;
  for (int tile = 0; tile < tiles; ++tile) {
    ptx::copy_async_wait<0>();
    // Everyone's part of this tile has arrived, and everyone is done with the buffer of the tile before.
    ptx::sync_threads();
    if (tile + 1 < tiles) copy_tile(tile + 1);

    const int buffer = tile % 2 * Tile::kKeyBytes;
    typename State::Scores scores;
    state.score(scores, warp_rows, key_rows + buffer);
    const int valid = params.length - tile * Tile::kKeys;
    if (valid < Tile::kKeys) state.mask(scores, valid);
    state.rescale(scores, params.scale_log2);
    state.gather(scores, value_rows + buffer);
  }
  state.store(params, batch, head, first_query, warp_row, warp_rows);
}

}  // namespace pyrf
