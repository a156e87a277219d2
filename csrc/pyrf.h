// The C interface of pyrf's CUDA kernels: one function an op, the same arguments as in pyrf/ops.
//
// Pointers are device memory, aligned to 16 bytes (`slot` to 8). Strides are in elements, one for each
// dimension of the shape named beside the pointer; the last must be 1, the others multiples of 8. The stride
// of a dimension of size 1 is ignored, and only what is not written may be expanded (stride 0). What has no
// strides is contiguous. Work goes to `stream` of the current device; nothing is allocated and the host never
// waits, so every call can be captured in a graph.
//
// A slot outside the cache, which only the device can see, writes nothing to the cache.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pyrf_status {
  PYRF_OK = 0,
  PYRF_BAD_ARGUMENT = 1,   // nothing was launched
  PYRF_LAUNCH_FAILED = 2,  // CUDA refused: no driver, no device, no kernel for this device
};

enum pyrf_dtype { PYRF_BF16 = 0, PYRF_FP16 = 1 };

// clang-format off: shapes stand in a column

// What went wrong in this thread's last call that did not return PYRF_OK.
const char* pyrf_last_error(void);

// sum = residual + gate * y + bias, and normed = act(norm(sum) * weight + shift) of the sum as it is rounded.
// D is a multiple of 8, at most 5120. Each of residual, gate, bias and shift may be null, and is left out.
int pyrf_add_norm(
    int dtype,                              // of everything
    const void* y,                          // [rows, D]
    const void* residual,                   // [rows, D]; null: sum is null, and not written
    const void* gate, const void* bias,     // [D]
    const void* weight, const void* shift,  // [D]; weight null: normed is null, and there is no norm
    double eps,                             //
    int rms,                                // 1: divide by the root mean square; 0: LayerNorm
    int silu,                               // 1: act(x) = x / (1 + exp(-x)); 0: act(x) = x
    void* sum, void* normed,                // [rows, D]
    int64_t rows, int64_t dim, void* stream);

// Fold the chunk in `*slot` into the sink (slot 0), for the keys and values of a layer.
// head_dim is 64 or 128; capacity a multiple of tokens.
int pyrf_ema_sink_update(
    int dtype,                                                // of keys and values
    void* keys, const int64_t* keys_strides,                  // [batch, heads, capacity, head_dim]
    void* values, const int64_t* values_strides,              // [batch, heads, capacity, head_dim]
    void* key_master, const int64_t* key_master_strides,      // [batch, heads, tokens, head_dim] int16 for
    void* value_master, const int64_t* value_master_strides,  //   bf16, float32 for fp16
    const int64_t* slot,                                      // scalar
    const float* turn,                                        // [time_pairs, 2] cosine and sine
    int64_t batch, int64_t heads, int64_t capacity, int64_t tokens, int64_t head_dim, int64_t time_pairs,
    double alpha, void* stream);

// Normalise and rotate q and k over D = heads * head_dim channels, at most 5120; write k and v into `*slot`.
int pyrf_norm_rope_append(
    int dtype,                                    // of everything but rope and slot
    const void* q, const int64_t* q_strides,      // [batch, tokens, D]
    const void* k, const int64_t* k_strides,      // [batch, tokens, D]
    const void* v, const int64_t* v_strides,      // [batch, tokens, D]
    const void* norm_q, const void* norm_k,       // [D]
    double eps,                                   //
    const float* rope,                            // [tokens, head_dim / 2, 2] cosine and sine
    const int64_t* slot,                          // scalar
    void* keys, const int64_t* keys_strides,      // [batch, heads, capacity, head_dim]
    void* values, const int64_t* values_strides,  // [batch, heads, capacity, head_dim]
    void* q_out,                                  // [batch, tokens, D]
    int64_t batch, int64_t heads, int64_t capacity, int64_t tokens, int64_t head_dim, void* stream);

// Attend from q to the first `length` tokens of the cache, scaled by 1 / sqrt(head_dim).
int pyrf_ring_attention(
    int dtype,                                          // of everything
    const void* q, const int64_t* q_strides,            // [batch, heads, queries, head_dim]
    const void* keys, const int64_t* keys_strides,      // [batch, heads, capacity, head_dim]
    const void* values, const int64_t* values_strides,  // [batch, heads, capacity, head_dim]
    void* out,                                          // [batch, queries, heads * head_dim]
    int64_t batch, int64_t heads, int64_t capacity, int64_t queries, int64_t length, int64_t head_dim,
    void* stream);

#ifdef __cplusplus
}
#endif
