// The C interface of pyrf's CUDA kernels: one function per op, with the arguments of the op in pyrf/ops, its
// outputs and a stream.
//
// Tensors are in device memory, aligned to 16 bytes (`slot` to 8). What is said to be strided has a stride of
// 1 in its last dimension and multiples of 8 (of e4m3: 16) in the others; the stride of a dimension of size 1
// is ignored, and only what is not written may be expanded (stride 0). All else is contiguous. Work goes to
// `stream` of the current device; nothing is allocated and the host never waits, so every call can be
// captured in a graph.
//
// A slot outside the cache, which only the device can see, writes nothing to the cache.
#pragma once

#include "view.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pyrf_status {
  PYRF_OK = 0,
  PYRF_BAD_ARGUMENT = 1,   // nothing was launched
  PYRF_LAUNCH_FAILED = 2,  // CUDA refused: no driver, no device, no kernel for this device
};

// What went wrong in this thread's last call that did not return PYRF_OK.
const char* pyrf_last_error(void);

// clang-format off: shapes stand in a column

// sum = residual + gate * y + bias, and normed = act(norm(sum) * weight + shift) of the sum as it is rounded.
// D is a multiple of 8, at most 5120. Each of residual, gate, bias and shift may be null, and is left out. With
// scales, normed is rounded to its dtype and then to e4m3, as quantise_rows does.
int pyrf_add_norm(
    pyrf_view y,                        // [..., D] bf16 or fp16, like every tensor without a type here
    pyrf_view residual,                 // [..., D]; null: sum is null, and not written
    pyrf_view gate, pyrf_view bias,     // [D]
    pyrf_view weight, pyrf_view shift,  // [D]; weight null: normed is null, and there is no norm
    double eps,                         //
    int rms,                            // 1: divide by the root mean square; 0: LayerNorm
    int silu,                           // 1: act(x) = x / (1 + exp(-x)); 0: act(x) = x
    pyrf_view sum, pyrf_view normed,    // [..., D]; normed beside scales e4m3
    pyrf_view scales,                   // [..., 1] float32; null: normed is like y
    void* stream);

// Fold the chunk in `slot` into the sink (slot 0), for the keys and values of a layer.
// head_dim is 64 or 128; capacity a multiple of tokens.
int pyrf_ema_sink_update(
    pyrf_view keys, pyrf_view values,              // [batch, heads, capacity, head_dim] bf16, fp16 or e4m3,
                                                   //   strided
    pyrf_view key_master, pyrf_view value_master,  // [batch, heads, tokens, head_dim], strided: int16 beside
                                                   //   bf16, float32 beside fp16 and e4m3
    pyrf_view slot,                                // [] int64
    pyrf_view turn,                                // [time_pairs, 2] float32, cosine and sine
    int64_t tokens, double alpha, void* stream);

// Normalise and rotate q and k over D = heads * head_dim channels, at most 5120; write k and v into `slot`.
int pyrf_norm_rope_append(
    pyrf_view q, pyrf_view k, pyrf_view v,  // [batch, tokens, D] bf16 or fp16 like all but a cache, strided
    pyrf_view norm_q, pyrf_view norm_k,     // [D]
    double eps,                             //
    pyrf_view rope,                         // [tokens, head_dim / 2, 2] float32, cosine and sine
    pyrf_view slot,                         // [] int64
    pyrf_view keys, pyrf_view values,       // [batch, heads, capacity, head_dim] like q or e4m3, strided
    pyrf_view q_out,                        // [batch, tokens, heads, head_dim]
    void* stream);

// Rows to e4m3: the largest number of each becomes 448, and scales undo it. D is a multiple of 8, at most 14336.
int pyrf_quantise_rows(
    pyrf_view x,       // [..., D] bf16 or fp16
    int gelu,          // 1: of GELU in its tanh form, as it is rounded to x's dtype
    pyrf_view rows,    // [..., D] e4m3
    pyrf_view scales,  // [..., 1] float32
    void* stream);

// Attend from q to the first `length` tokens of the cache, scaled by 1 / sqrt(head_dim).
int pyrf_ring_attention(
    pyrf_view q,                       // [batch, heads, queries, head_dim] bf16 or fp16, strided
    pyrf_view keys, pyrf_view values,  // [batch, heads, capacity, head_dim], strided
    int64_t length,                    //
    pyrf_view out,                     // [batch, queries, heads * head_dim]
    void* stream);

// The same over a cache of e4m3, with products of e4m3: q is rounded, and so are the softmax's weights.
int pyrf_ring_attention_e4m3(
    pyrf_view q,                       // [batch, heads, queries, head_dim] bf16 or fp16, strided
    pyrf_view keys, pyrf_view values,  // [batch, heads, capacity, head_dim] e4m3, strided
    int64_t length,                    //
    pyrf_view out,                     // [batch, queries, heads * head_dim] like q
    void* stream);

#ifdef __cplusplus
}
#endif
