// The part of ring_attention that is compiled for AVX-512.
#pragma once

#include "ops.h"

namespace pyrf::cpu {

inline constexpr int64_t kRows = 12;       // queries that one product takes
inline constexpr int64_t kColumns = 32;    // what it computes for each of them
inline constexpr int64_t kKeyBlock = 256;  // keys of a head that stay in the second cache while rows pass

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
