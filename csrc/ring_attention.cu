// Host side of ring_attention: check, fill the parameters, launch.
#include "launch.h"
#include "ring_attention.cuh"

extern "C" int pyrf_ring_attention(pyrf_view q, pyrf_view keys, pyrf_view values, int64_t length,
                                   pyrf_view out, void* stream) {
  using namespace pyrf;
  Check check("ring_attention");
  check.dimensions("q", q, 4);
  check.dimensions("keys", keys, 4);
  if (!check.ok()) return check.status();
  const int dtype = keys.dtype;
  const int64_t batch = keys.shape[0], heads = keys.shape[1], capacity = keys.shape[2];
  const int64_t head_dim = keys.shape[3], queries = q.shape[2];
  const Shape cache{batch, heads, capacity, head_dim};
  check.cache(keys);
  check.range("queries", queries, 1, kMaxTokens);
  check.range("length", length, 1, capacity);
  check.contiguous("out", out, dtype, {batch, queries, heads * head_dim});

  RingAttentionParams params{};
  params.q_strides = check.heads_first("q", q, dtype, {batch, heads, queries, head_dim});
  params.keys_strides = check.heads_first("keys", keys, dtype, cache);
  params.values_strides = check.heads_first("values", values, dtype, cache);
  if (!check.ok()) return check.status();
  params.q = q.address;
  params.keys = keys.address;
  params.values = values.address;
  params.out = out.address;
  params.heads = static_cast<int>(heads);
  params.queries = static_cast<int>(queries);
  params.length = static_cast<int>(length);
  params.scale_log2 = scale_log2(head_dim);
  return dispatch(dtype, head_dim, [&](auto type, auto dim) {
    using Tile = RingTile<decltype(dim)::value>;
    const dim3 grid(static_cast<unsigned>((queries + Tile::kQueries - 1) / Tile::kQueries),
                    static_cast<unsigned>(heads), static_cast<unsigned>(batch));
    return launch("ring_attention", ring_attention_kernel<decltype(type), decltype(dim)::value>, grid,
                  Tile::kThreads, Tile::kSharedBytes, stream, params);
  });
}
