// Softmax attention of one head in the manner of FlashAttention: a block of keys after the other, each with a
// running maximum and sum of every row. Built for AVX-512, so it uses nothing of the standard library: the
// linker might take its copy of an inline function for machines without.
//
// Both products, q k^T and p v, are the same small one: kRows rows of the left factor, one number each,
// against two registers of the right one, summed in 24 of the 32 registers.
#include "attention_rows.h"

namespace pyrf::cpu {
namespace {

constexpr int64_t kLanes = 16;
static_assert(kColumns == 2 * kLanes && kKeyBlock % kColumns == 0);
constexpr float kLowest = -1e30f;  // below any score

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));

template <int...>
struct Lanes {};
constexpr Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15> kAll;

#define PYRF_INLINE __attribute__((always_inline)) inline

PYRF_INLINE Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }

PYRF_INLINE void store(float* to, Vector x) { *reinterpret_cast<Unaligned*>(to) = x; }

// The larger of each lane; b where one is NaN.
PYRF_INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// 2^x for x <= 0, within 2 units in the last place; 2^-126 for what is smaller, and NaN for NaN.
PYRF_INLINE Vector power_of_2(Vector x) {
  x = larger(Vector{} - 126.0f, x);
  const float shift = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  const Vector whole = (x + shift) - shift, rest = x - whole;
  Vector y = rest * 1.5403530393e-4f + 1.3333558146e-3f;
  y = y * rest + 9.6181291076e-3f;
  y = y * rest + 5.5504108665e-2f;
  y = y * rest + 2.4022650696e-1f;
  y = y * rest + 6.9314718056e-1f;
  y = y * rest + 1.0f;
  const Integers exponent = (__builtin_convertvector(whole, Integers) + 127) << 23;
  return y * (Vector)exponent;  // of vectors a cast keeps the bits
}

// sums[r] += sum over k of left[r][k] * right[k], for columns of right that fill two registers.
PYRF_INLINE void multiply(const float* left, int64_t left_row, const float* right, int64_t right_row,
                          int64_t depth, Vector (&sums)[kRows][2]) {
  for (int64_t k = 0; k < depth; ++k, right += right_row) {
    const Vector first = load(right), second = load(right + kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const float x = left[r * left_row + k];
      sums[r][0] += x * first;
      sums[r][1] += x * second;
    }
  }
}

// One step of a transposition: rows whose numbers differ in the bit kStep exchange lanes that differ in it.
template <int kStep, int... lane>
PYRF_INLINE void exchange(Vector (&rows)[kLanes], Lanes<lane...>) {
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) {
    if (r & kStep) continue;
    const Vector a = rows[r], b = rows[r | kStep];
    rows[r] = __builtin_shufflevector(a, b, (lane & kStep ? kLanes + (lane ^ kStep) : lane)...);
    rows[r | kStep] = __builtin_shufflevector(a, b, (lane & kStep ? kLanes + lane : lane | kStep)...);
  }
}

PYRF_INLINE void transpose(Vector (&rows)[kLanes]) {
  exchange<1>(rows, kAll);
  exchange<2>(rows, kAll);
  exchange<4>(rows, kAll);
  exchange<8>(rows, kAll);
}

// Keys [count, head_dim] to panels [count / kColumns, head_dim, kColumns]. What the last panel holds behind
// them is never used.
void pack(const float* keys, int64_t stride, int64_t count, int64_t head_dim, float* panels) {
  for (int64_t start = 0; start < count; start += kLanes) {
    float* panel = panels + start / kColumns * kColumns * head_dim + start % kColumns;
    for (int64_t c = 0; c < head_dim; c += kLanes) {
      Vector rows[kLanes];
#pragma GCC unroll 16
      for (int64_t r = 0; r < kLanes; ++r)
        rows[r] = start + r < count ? load(keys + (start + r) * stride + c) : Vector{};
      transpose(rows);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kLanes; ++r) store(panel + (c + r) * kColumns, rows[r]);
    }
  }
}

PYRF_INLINE void zero(Vector (&sums)[kRows][2]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = Vector{};
}

template <int kStep, int... lane>
PYRF_INLINE Vector swap_lanes(Vector x, Lanes<lane...>) {
  return __builtin_shufflevector(x, x, (lane ^ kStep)...);
}

PYRF_INLINE float reduce_max(Vector x) {
  x = larger(x, swap_lanes<8>(x, kAll));
  x = larger(x, swap_lanes<4>(x, kAll));
  x = larger(x, swap_lanes<2>(x, kAll));
  return larger(x, swap_lanes<1>(x, kAll))[0];
}

PYRF_INLINE float reduce_sum(Vector x) {
  x += swap_lanes<8>(x, kAll);
  x += swap_lanes<4>(x, kAll);
  x += swap_lanes<2>(x, kAll);
  return (x + swap_lanes<1>(x, kAll))[0];
}

// Scaled queries [rows, head_dim], filled up to kRows with zeros.
void take_queries(const float* from, int64_t stride, int64_t rows, const RingAttention& p, float* to) {
  for (int64_t r = 0; r < kRows; ++r, from += stride)
    for (int64_t c = 0; c < p.head_dim; ++c)
      to[r * p.head_dim + c] = r < rows ? from[c] * p.scale_log2 : 0.0f;
}

// scores [kRows, kKeyBlock] = queries keys^T, for keys in panels.
void score(const AttentionScratch& scratch, int64_t columns, int64_t head_dim) {
  for (int64_t column = 0; column < columns; column += kColumns) {
    Vector sums[kRows][2];
    zero(sums);
    multiply(scratch.queries, head_dim, scratch.keys + column * head_dim, kColumns, head_dim, sums);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      float* to = scratch.scores + r * kKeyBlock + column;
      store(to, sums[r][0]);
      store(to + kLanes, sums[r][1]);
    }
  }
}

// A row's `columns` scores, of which `count` are of keys, to weights that count from its new maximum. Returns
// what its sums so far count from there.
float weigh(float* scores, int64_t count, int64_t columns, float& maximum, float& sum) {
  for (int64_t i = count; i < columns; ++i) scores[i] = kLowest;
  Vector high = load(scores);
  for (int64_t i = kLanes; i < columns; i += kLanes) high = larger(high, load(scores + i));
  const float old = maximum, now = reduce_max(high);
  maximum = now > old ? now : old;
  Vector total = {};
  for (int64_t i = 0; i < columns; i += kLanes) {
    const Vector weight = power_of_2(load(scores + i) - maximum);
    total += weight;
    store(scores + i, weight);
  }
  const float keep = power_of_2(Vector{} + (old - maximum))[0];
  sum = sum * keep + reduce_sum(total);
  return keep;
}

// out [rows, head_dim] = out * keep + weights values.
void add_values(const float* weights, const float* values, int64_t stride, int64_t count, int64_t head_dim,
                int64_t rows, const float* keep, float* out, int64_t out_row) {
  for (int64_t c = 0; c < head_dim; c += kColumns) {
    Vector sums[kRows][2];
    zero(sums);
    multiply(weights, kKeyBlock, values + c, stride, count, sums);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      float* to = out + r * out_row + c;
      store(to, load(to) * keep[r] + sums[r][0]);
      store(to + kLanes, load(to + kLanes) * keep[r] + sums[r][1]);
    }
  }
}

}  // namespace

void attention_rows(const RingAttention& p, int64_t batch, int64_t head, int64_t first, int64_t last,
                    const AttentionScratch& scratch) {
  const float* q = p.q + batch * p.q_strides.batch + head * p.q_strides.head;
  const float* keys = p.keys + batch * p.keys_strides.batch + head * p.keys_strides.head;
  const float* values = p.values + batch * p.values_strides.batch + head * p.values_strides.head;
  const int64_t out_row = p.heads * p.head_dim;
  float* out = p.out + batch * p.queries * out_row + head * p.head_dim;

  for (int64_t row = first; row < last; ++row) {
    scratch.maxima[row - first] = kLowest;
    scratch.sums[row - first] = 0.0f;
    for (int64_t c = 0; c < p.head_dim; ++c) out[row * out_row + c] = 0.0f;
  }
  for (int64_t key = 0; key < p.length; key += kKeyBlock) {
    const int64_t count = p.length - key < kKeyBlock ? p.length - key : kKeyBlock;
    const int64_t columns = (count + kColumns - 1) / kColumns * kColumns;
    pack(keys + key * p.keys_strides.token, p.keys_strides.token, count, p.head_dim, scratch.keys);
    for (int64_t row = first; row < last; row += kRows) {
      const int64_t rows = last - row < kRows ? last - row : kRows;
      take_queries(q + row * p.q_strides.token, p.q_strides.token, rows, p, scratch.queries);
      score(scratch, columns, p.head_dim);
      float keep[kRows];
      for (int64_t r = 0; r < rows; ++r)
        keep[r] = weigh(scratch.scores + r * kKeyBlock, count, columns, scratch.maxima[row - first + r],
                        scratch.sums[row - first + r]);
      add_values(scratch.scores, values + key * p.values_strides.token, p.values_strides.token, count,
                 p.head_dim, rows, keep, out + row * out_row, out_row);
    }
  }
  for (int64_t row = first; row < last; ++row) {
    const float share = 1.0f / scratch.sums[row - first];
    for (int64_t c = 0; c < p.head_dim; ++c) out[row * out_row + c] *= share;
  }
}

}  // namespace pyrf::cpu
