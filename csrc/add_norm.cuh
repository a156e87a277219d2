// The sum of a residual, a gated row and a bias, its norm and its activation in one pass. Bound by memory:
// the lanes of a row hold it in registers, in its 16 bits, and each byte moves once.
#pragma once

#include "row_scale.cuh"

namespace pyrf {

inline constexpr int kAddNormThreads = 128;

// How rows of up to kMaxDim channels are spread over a block. Lanes with few channels work on several rows,
// so that enough loads are under way, and what all rows share is loaded once. Lanes with many work on a part
// of them at a time: what is done with is stored before more is loaded, which keeps the registers in bounds.
template <int kMaxDim>
struct AddNormTile {
  static constexpr int kLanes = kMaxDim <= 16 * kVector ? 16 : 32;         // of a row, in one warp
  static constexpr int kVectors = kMaxDim / kVector / kLanes;              // of a lane in a row
  static constexpr int kRows = kVectors == 1 ? 4 : kVectors == 2 ? 2 : 1;  // of a lane
  static constexpr int kPart = kVectors <= 6 ? kVectors : 4;               // of the vectors, at a time
  static constexpr int kGroups = kAddNormThreads / kLanes;
  static constexpr int kBlockRows = kGroups * kRows;
  static_assert(kVectors * kLanes * kVector == kMaxDim && kVectors % kPart == 0, "shared evenly");
  using Words = uint4[kRows][kVectors];
};

// The part of some rows that a lane holds: vectors `first`, `first` + kLanes ... of each.
template <int kMaxDim>
struct AddNormRows {
  using Tile = AddNormTile<kMaxDim>;

  int first;
  int64_t start[Tile::kRows];  // of a row, in vectors
  int vectors[Tile::kRows];    // of a row; none past the last row

  PYRF_DEVICE explicit AddNormRows(const AddNormParams& params) {
    first = threadIdx.x % Tile::kLanes;
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
      start[r] = row(r) * params.vectors;
      vectors[r] = row(r) < params.rows ? params.vectors : 0;
    }
  }

  // The lane's r-th row.
  PYRF_DEVICE int64_t row(int r) const {
    return static_cast<int64_t>(blockIdx.x) * Tile::kBlockRows + threadIdx.x / Tile::kLanes +
           r * Tile::kGroups;
  }

  // The lane's v-th vector in a row.
  PYRF_DEVICE int vector(int v) const { return first + v * Tile::kLanes; }

  PYRF_DEVICE bool holds(int r, int v) const { return vector(v) < vectors[r]; }

  // kCount of the lane's vectors from `begin` on, zeros where there are none.
  template <int kCount>
  PYRF_DEVICE void load(const void* from, int begin, uint4 (&words)[Tile::kRows][kCount]) const {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
      for (int v = 0; v < kCount; ++v) {
        const uint4* row = static_cast<const uint4*>(from) + start[r];
        words[r][v] = holds(r, begin + v) ? ptx::load16(row + vector(begin + v)) : uint4{};
      }
    }
  }

  // A part of the lane's vectors, from `begin` on.
  PYRF_DEVICE void store(void* to, int begin, const typename Tile::Words& words) const {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
      for (int v = begin; v < begin + Tile::kPart; ++v) {
        uint4* row = static_cast<uint4*>(to) + start[r];
        if (holds(r, v)) ptx::store16(row + vector(v), words[r][v]);
      }
    }
  }
};

// Eight channels of a parameter [D], or `otherwise` where it is null or ends before.
template <class T>
PYRF_DEVICE void load_parameter(const AddNormParams& params, const void* parameter, int vector,
                                float otherwise, float (&x)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) x[i] = otherwise;
  if (parameter != nullptr && vector < params.vectors) {
    unpack<T>(ptx::load16(static_cast<const uint4*>(parameter) + vector), x);
  }
}

template <class T>
PYRF_DEVICE float channel_sum(uint4 words) {
  float x[kVector], sum = 0.0f;
  unpack<T>(words, x);
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum += x[i];
  return sum;
}

// Of squared distances.
template <class T>
PYRF_DEVICE float distance_sum(uint4 words, float mean) {
  float x[kVector], sum = 0.0f;
  unpack<T>(words, x);
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum = fmaf(x[i] - mean, x[i] - mean, sum);
  return sum;
}

PYRF_DEVICE float silu(float x) {
  return x * ptx::reciprocal(1.0f + ptx::exp2(-static_cast<float>(kLog2E) * x));
}

// words = residual + gate words + bias, rounded and stored.
template <class T, int kMaxDim>
PYRF_DEVICE void add(const AddNormParams& params, const AddNormRows<kMaxDim>& rows,
                     typename AddNormTile<kMaxDim>::Words& words) {
  using Tile = AddNormTile<kMaxDim>;
#pragma unroll
  for (int begin = 0; begin < Tile::kVectors; begin += Tile::kPart) {
    uint4 residual_words[Tile::kRows][Tile::kPart]{};
    if (params.residual != nullptr) rows.load(params.residual, begin, residual_words);
#pragma unroll
    for (int v = begin; v < begin + Tile::kPart; ++v) {
      float gate[kVector], bias[kVector];
      load_parameter<T>(params, params.gate, rows.vector(v), 1.0f, gate);
      load_parameter<T>(params, params.bias, rows.vector(v), 0.0f, bias);
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) {
        float x[kVector], residual[kVector];
        unpack<T>(words[r][v], x);
        unpack<T>(residual_words[r][v - begin], residual);
#pragma unroll
        for (int i = 0; i < kVector; ++i) x[i] = residual[i] + fmaf(gate[i], x[i], bias[i]);
        words[r][v] = pack<T>(x);
      }
    }
    if (params.sum != nullptr) rows.store(params.sum, begin, words);
  }
}

// words to e4m3, stored with the scales of their rows; every lane of the warp must call.
template <class T, int kMaxDim>
PYRF_DEVICE void store_quantised(const AddNormParams& params, const AddNormRows<kMaxDim>& rows,
                                 const typename AddNormTile<kMaxDim>::Words& words) {
  using Tile = AddNormTile<kMaxDim>;
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) {
    uint32_t largest = 0;
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v) largest = larger(largest, largest_size(words[r][v]));
    const RowScale row = RowScale::of<T>(row_largest<Tile::kLanes>(largest));
    uint2* to = static_cast<uint2*>(params.normed) + rows.start[r];
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v) {
      if (rows.holds(r, v)) ptx::store8(to + rows.vector(v), row.rounded<T>(words[r][v]));
    }
    if (rows.first == 0 && rows.holds(r, 0)) ptx::store_float(params.scales + rows.row(r), row.scale);
  }
}

// act(norm(words) weight + shift), rounded and stored as Out; every lane of the warp must call.
template <class T, class Out, int kMaxDim>
PYRF_DEVICE void norm(const AddNormParams& params, const AddNormRows<kMaxDim>& rows,
                      typename AddNormTile<kMaxDim>::Words& words) {
  using Tile = AddNormTile<kMaxDim>;
  float mean[Tile::kRows]{}, scale[Tile::kRows];
  if (!params.rms) {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
      for (int v = 0; v < Tile::kVectors; ++v) mean[r] += channel_sum<T>(words[r][v]);
      mean[r] = row_sum<Tile::kLanes>(mean[r]) * params.inverse_dim;
    }
  }
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) {
    float squares = 0.0f;
#pragma unroll
    for (int v = 0; v < Tile::kVectors; ++v) {
      const float centre = rows.holds(r, v) ? mean[r] : 0.0f;  // where there is nothing, of zeros
      squares += distance_sum<T>(words[r][v], centre);
    }
    scale[r] = ptx::rsqrt(row_sum<Tile::kLanes>(squares) * params.inverse_dim + params.eps);
  }
#pragma unroll
  for (int begin = 0; begin < Tile::kVectors; begin += Tile::kPart) {
#pragma unroll
    for (int v = begin; v < begin + Tile::kPart; ++v) {
      float weight[kVector], shift[kVector];
      load_parameter<T>(params, params.weight, rows.vector(v), 0.0f, weight);
      load_parameter<T>(params, params.shift, rows.vector(v), 0.0f, shift);
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) {
        float x[kVector];
        unpack<T>(words[r][v], x);
#pragma unroll
        for (int i = 0; i < kVector; ++i) x[i] = fmaf((x[i] - mean[r]) * scale[r], weight[i], shift[i]);
        if (params.silu) {
#pragma unroll
          for (int i = 0; i < kVector; ++i) x[i] = silu(x[i]);
        }
        words[r][v] = pack<T>(x);
      }
    }
    if constexpr (kIsE4m3<Out>) {
      // In the place of a store, which keeps the compiler from loading all parts at once.
      if (begin + Tile::kPart < Tile::kVectors) ptx::sync_warp();
    } else {
      rows.store(params.normed, begin, words);
    }
  }
  if constexpr (kIsE4m3<Out>) store_quantised<T>(params, rows, words);
}

// Blocks on a multiprocessor for which the compiler has to find registers; 0: as many as it likes. Left to
// itself it spills where a lane has several rows to scale.
template <int kMaxDim, class Out>
inline constexpr int kAddNormBlocks = kIsE4m3<Out> && AddNormTile<kMaxDim>::kRows > 1 ? 6 : 0;

// Grid: blocks of rows. No barrier: a row is one warp's. The norm is that of the sum as it is rounded.
template <class T, int kMaxDim, class Out>
__global__ void __launch_bounds__(kAddNormThreads, kAddNormBlocks<kMaxDim, Out>)
    add_norm_kernel(const AddNormParams params) {
  const AddNormRows<kMaxDim> rows(params);
  typename AddNormTile<kMaxDim>::Words words;
  rows.load(params.y, 0, words);
  add<T, kMaxDim>(params, rows, words);
  if (params.weight != nullptr) norm<T, Out>(params, rows, words);
}

}  // namespace pyrf
