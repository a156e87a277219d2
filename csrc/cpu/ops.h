// The ops on a CPU, in float32. Shapes, strides and what may be null are as in pyrf.h, pointers host memory.
// Nothing is checked here: `pyrf/ops` does. Up to `threads` of OpenMP's threads work; results do not depend
// on how many.
#pragma once

#include <cstdint>

#include "../params.h"

namespace pyrf::cpu {

struct AddNorm {
  const float* y;         // [rows, D]
  const float* residual;  // [rows, D]
  const float* gate;      // [D]
  const float* bias;      // [D]
  const float* weight;    // [D]
  const float* shift;     // [D]
  float* sum;             // [rows, D]
  float* normed;          // [rows, D]
  int64_t rows, dim;
  float eps;
  bool rms;
};

// Without the activation.
void add_norm(const AddNorm& p, int threads);

struct NormRope {
  const float* q;                           // [batch, tokens, D]
  const float* k;                           // [batch, tokens, D]
  const float* v;                           // [batch, tokens, D]
  const float* norm_q;                      // [D]
  const float* norm_k;                      // [D]
  const float* rope;                        // [tokens, head_dim / 2, 2] cosine and sine
  float* keys;                              // [batch, heads, tokens, head_dim], the slot to write
  float* values;                            // [batch, heads, tokens, head_dim], the slot to write
  float* q_out;                             // [batch, tokens, D] contiguous
  Strides q_strides, k_strides, v_strides;  // head = head_dim
  Strides keys_strides, values_strides;
  int64_t batch, heads, tokens, head_dim;
  float eps;
};

void norm_rope_append(const NormRope& p, int threads);

struct RingAttention {
  const float* q;       // [batch, heads, queries, head_dim]
  const float* keys;    // [batch, heads, length, head_dim]
  const float* values;  // [batch, heads, length, head_dim]
  float* out;           // [batch, queries, heads * head_dim] contiguous
  Strides q_strides, keys_strides, values_strides;
  int64_t batch, heads, queries, length, head_dim;
  float scale_log2;  // log2(e) / sqrt(head_dim): the softmax is taken in base 2
};

// Whether ring_attention has loops for this machine (x86 with AVX-512) and these heads (multiples of 32).
bool serves_ring_attention(int64_t head_dim);

// Only where it serves.
void ring_attention(const RingAttention& p, int threads);

}  // namespace pyrf::cpu
