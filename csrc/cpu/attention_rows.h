// The part of ring_attention that is compiled for AVX-512.
#pragma once

#include "../params.h"

namespace pyrf::cpu {

inline constexpr int64_t kRows = 12;       // queries that one product takes
inline constexpr int64_t kColumns = 32;    // what it computes for each of them
inline constexpr int64_t kKeyBlock = 256;  // keys of a head that stay in the second cache while rows pass

// The op's arguments, with the strides of [batch, heads, tokens, head_dim].
struct RingAttention {
  const float* q;
  const float* keys;
  const float* values;
  float* out;  // [batch, queries, heads * head_dim] contiguous
  Strides q_strides, keys_strides, values_strides;
  int64_t batch, heads, queries, length, head_dim;
  float scale_log2;
};

// What a thread works with.
struct AttentionScratch {
  float* keys;     // [kKeyBlock / kColumns, head_dim, kColumns], a block of keys in panels
  float* queries;  // [kRows, head_dim]
  float* scores;   // [kRows, kKeyBlock]
  float* maxima;   // [last - first]
  float* sums;     // [last - first]
};

// Attention of queries `first` to `last` of one head.
void attention_rows(const RingAttention& p, int64_t batch, int64_t head, int64_t first, int64_t last,
                    const AttentionScratch& scratch);

}  // namespace pyrf::cpu
