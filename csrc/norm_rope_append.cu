// Host side of norm_rope_append: check, fill the parameters, launch.
#include "launch.h"
#include "norm_rope_append.cuh"

extern "C" int pyrf_norm_rope_append(pyrf_view q, pyrf_view k, pyrf_view v, pyrf_view norm_q,
                                     pyrf_view norm_k, double eps, pyrf_view rope, pyrf_view slot,
                                     pyrf_view keys, pyrf_view values, pyrf_view q_out, void* stream) {
  using namespace pyrf;
  Check check("norm_rope_append");
  check.dimensions("q", q, 3);
  check.dimensions("keys", keys, 4);
  if (!check.ok()) return check.status();
  const int dtype = q.dtype, cache_dtype = keys.dtype == PYRF_E4M3 ? PYRF_E4M3 : dtype;
  const int64_t batch = keys.shape[0], heads = keys.shape[1], capacity = keys.shape[2];
  const int64_t head_dim = keys.shape[3], tokens = q.shape[1], dim = heads * head_dim;
  const Shape chunk{batch, tokens, dim}, cache{batch, heads, capacity, head_dim};
  check.elements(dtype);
  check.cache(keys);
  check.slots(capacity, tokens);
  check.range("heads * head_dim", dim, 1, kNormMaxDim);
  check.that(eps >= 0.0, "eps must not be negative, got %g", eps);
  check.contiguous("norm_q", norm_q, dtype, {dim});
  check.contiguous("norm_k", norm_k, dtype, {dim});
  check.contiguous("rope", rope, PYRF_FP32, {tokens, head_dim / 2, 2});
  check.scalar("slot", slot, PYRF_INT64);
  check.contiguous("q_out", q_out, dtype, {batch, tokens, heads, head_dim});

  NormRopeParams params{};
  params.q_strides = check.tokens_first("q", q, dtype, chunk, head_dim);
  params.k_strides = check.tokens_first("k", k, dtype, chunk, head_dim);
  params.v_strides = check.tokens_first("v", v, dtype, chunk, head_dim);
  params.keys_strides = check.written("keys", keys, cache_dtype, cache);
  params.values_strides = check.written("values", values, cache_dtype, cache);
  if (!check.ok()) return check.status();
  params.q = q.address;
  params.k = k.address;
  params.v = v.address;
  params.norm_q = norm_q.address;
  params.norm_k = norm_k.address;
  params.rope = static_cast<const float*>(rope.address);
  params.slot = static_cast<const int64_t*>(slot.address);
  params.keys = keys.address;
  params.values = values.address;
  params.q_out = q_out.address;
  params.heads = static_cast<int>(heads);
  params.tokens = static_cast<int>(tokens);
  params.slots = static_cast<int>(capacity / tokens);
  params.eps = static_cast<float>(eps);
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(batch));
  const int threads = static_cast<int>((heads * head_dim / kVector + 31) / 32 * 32);
  return dispatch(dtype, head_dim, [&](auto type, auto dim) {
    const auto start = [&](auto stored) {
      using Cache = decltype(stored);
      return launch("norm_rope_append",
                    norm_rope_append_kernel<decltype(type), decltype(dim)::value, Cache>, grid, threads,
                    kNormSharedBytes, stream, params);
    };
    return cache_dtype == PYRF_E4M3 ? start(E4m3{}) : start(type);
  });
}
