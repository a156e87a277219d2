// Host side of norm_rope_append: check, fill the parameters, launch.
#include "launch.h"
#include "norm_rope_append.cuh"

extern "C" int pyrf_norm_rope_append(int dtype, const void* q, const int64_t* q_strides, const void* k,
                                     const int64_t* k_strides, const void* v, const int64_t* v_strides,
                                     const void* norm_q, const void* norm_k, double eps, const float* rope,
                                     const int64_t* slot, void* keys, const int64_t* keys_strides,
                                     void* values, const int64_t* values_strides, void* q_out, int64_t batch,
                                     int64_t heads, int64_t capacity, int64_t tokens, int64_t head_dim,
                                     void* stream) {
  using namespace pyrf;
  Check check("norm_rope_append");
  check.dtype(dtype);
  check.head_dim(head_dim);
  check.sizes(batch, heads, capacity);
  check.slots(capacity, tokens);
  check.range("heads * head_dim", heads * head_dim, 1, kNormMaxDim);
  check.that(eps >= 0.0, "eps must not be negative, got %g", eps);
  check.pointer("q", q);
  check.pointer("k", k);
  check.pointer("v", v);
  check.pointer("norm_q", norm_q);
  check.pointer("norm_k", norm_k);
  check.pointer("rope", rope);
  check.pointer("slot", slot, sizeof *slot);
  check.pointer("keys", keys);
  check.pointer("values", values);
  check.pointer("q_out", q_out);

  NormRopeParams params{};
  params.q_strides = check.tokens_first("q", q_strides, batch, tokens, head_dim);
  params.k_strides = check.tokens_first("k", k_strides, batch, tokens, head_dim);
  params.v_strides = check.tokens_first("v", v_strides, batch, tokens, head_dim);
  params.keys_strides = check.written("keys", keys_strides, batch, heads, capacity);
  params.values_strides = check.written("values", values_strides, batch, heads, capacity);
  if (!check.ok()) return check.status();
  params.q = q;
  params.k = k;
  params.v = v;
  params.norm_q = norm_q;
  params.norm_k = norm_k;
  params.rope = rope;
  params.slot = slot;
  params.keys = keys;
  params.values = values;
  params.q_out = q_out;
  params.heads = static_cast<int>(heads);
  params.tokens = static_cast<int>(tokens);
  params.slots = static_cast<int>(capacity / tokens);
  params.eps = static_cast<float>(eps);
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(batch));
  const int threads = static_cast<int>((heads * head_dim / kVector + 31) / 32 * 32);
  return dispatch(dtype, head_dim, [&](auto type, auto dim) {
    return launch("norm_rope_append", norm_rope_append_kernel<decltype(type), decltype(dim)::value>, grid,
                  threads, kNormSharedBytes, stream, params);
  });
}
