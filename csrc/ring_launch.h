// What the launchers of attention share: checks, parameters, the grid.
#pragma once

#include "launch.h"

namespace pyrf {

// Parameters for a cache of this dtype; to be used when the check is still well.
inline RingAttentionParams check_ring(Check& check, const pyrf_view& q, const pyrf_view& keys,
                                      const pyrf_view& values, int cache_dtype, int64_t length,
                                      const pyrf_view& out) {
  RingAttentionParams params{};
  check.dimensions("q", q, 4);
  check.dimensions("keys", keys, 4);
  if (!check.ok()) return params;
  const int64_t batch = keys.shape[0], heads = keys.shape[1], capacity = keys.shape[2];
  const int64_t head_dim = keys.shape[3], queries = q.shape[2];
  const Shape cache{batch, heads, capacity, head_dim};
  check.elements(q.dtype);
  check.cache(keys);
  check.range("queries", queries, 1, kMaxTokens);
  check.range("length", length, 1, capacity);
  check.contiguous("out", out, q.dtype, {batch, queries, heads * head_dim});
  params.q_strides = check.heads_first("q", q, q.dtype, {batch, heads, queries, head_dim});
  params.keys_strides = check.heads_first("keys", keys, cache_dtype, cache);
  params.values_strides = check.heads_first("values", values, cache_dtype, cache);
  if (!check.ok()) return params;
  params.q = q.address;
  params.keys = keys.address;
  params.values = values.address;
  params.out = out.address;
  params.heads = static_cast<int>(heads);
  params.queries = static_cast<int>(queries);
  params.length = static_cast<int>(length);
  params.scale_log2 = scale_log2(head_dim);
  return params;
}

template <class Tile>
int launch_ring(const char* op, void (*kernel)(RingAttentionParams), const RingAttentionParams& params,
                int64_t batch, void* stream) {
  const dim3 grid(static_cast<unsigned>((params.queries + Tile::kQueries - 1) / Tile::kQueries),
                  static_cast<unsigned>(params.heads), static_cast<unsigned>(batch));
  return launch(op, kernel, grid, Tile::kThreads, Tile::kSharedBytes, stream, params);
}

}  // namespace pyrf
