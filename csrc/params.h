// What each kernel is given, by value. Shapes are those of pyrf.h; strides are in elements.
#pragma once

#include <cstdint>

namespace pyrf {

inline constexpr double kLog2E = 1.4426950408889634;

// log2(e) / sqrt(head_dim), by which scores are multiplied: the softmax is taken in base 2. By Newton's
// method, as the plugin needs it while it is compiled.
constexpr float scale_log2(int64_t head_dim) {
  double root = static_cast<double>(head_dim);
  for (int step = 0; step < 16; ++step) root = 0.5 * (root + static_cast<double>(head_dim) / root);
  return static_cast<float>(kLog2E / root);
}

// Strides of [batch, heads, tokens, head_dim], the last of which is 1.
struct Strides {
  int64_t batch, head, token;
};

struct AddNormParams {
  const void* y;         // [rows, D] bf16 or fp16, like everything without a type here
  const void* residual;  // [rows, D], or null
  const void* gate;      // [D], or null
  const void* bias;      // [D], or null
  const void* weight;    // [D], or null: no norm
  const void* shift;     // [D], or null
  void* sum;             // [rows, D], null without residual
  void* normed;          // [rows, D], null without weight; e4m3 beside scales
  float* scales;         // [rows], or null
  int64_t rows;
  int vectors;  // of a row, D / 8
  float inverse_dim;
  float eps;
  int rms;   // the mean square's norm, else that of layers
  int silu;  // after the norm
};

struct EmaSinkParams {
  // One of the two halves of the work: the keys (turned) or the values (not).
  struct Half {
    void* cache;   // [B, H, capacity, head_dim] bf16, fp16 or e4m3
    void* master;  // [B, H, tokens, head_dim] int16 beside bf16, else float32
    Strides cache_strides;
    Strides master_strides;
  };
  Half halves[2];       // keys, values
  const int64_t* slot;  // scalar
  const float* turn;    // [time_pairs, 2] cosine and sine
  int heads;
  int tokens;      // of a slot
  int slots;       // in the cache
  int time_pairs;  // the first pairs of a head, those that turn
  float weight;    // of the evicted chunk, 1 - alpha
};

struct NormRopeParams {
  const void* q;        // [B, tokens, D] bf16 or fp16, like everything without a type here
  const void* k;        // [B, tokens, D]
  const void* v;        // [B, tokens, D]
  const void* norm_q;   // [D]
  const void* norm_k;   // [D]
  const float* rope;    // [tokens, head_dim / 2, 2] cosine and sine
  const int64_t* slot;  // scalar
  void* keys;           // [B, H, capacity, head_dim], like q or e4m3
  void* values;         // [B, H, capacity, head_dim], like keys
  void* q_out;          // [B, tokens, H * head_dim] contiguous
  Strides q_strides, k_strides, v_strides;  // head = head_dim
  Strides keys_strides, values_strides;
  int heads;
  int tokens;  // of a slot
  int slots;   // in the cache
  float eps;
};

struct QuantiseRowsParams {
  const void* x;  // [rows, D] bf16 or fp16
  void* rows;     // [rows, D] e4m3
  float* scales;  // [rows]
  int vectors;    // of a row, D / 8
  int gelu;       // before it is rounded
};

struct RingAttentionParams {
  const void* q;       // [B, H, queries, head_dim] bf16 or fp16
  const void* keys;    // [B, H, capacity, head_dim], like q; of ring_attention_e4m3 e4m3
  const void* values;  // [B, H, capacity, head_dim], like keys
  void* out;           // [B, queries, H * head_dim] contiguous, like q
  Strides q_strides, keys_strides, values_strides;
  int heads;
  int queries;
  int length;  // valid keys, at least 1
  float scale_log2;
};

}  // namespace pyrf
