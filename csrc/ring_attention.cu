// Host side of ring_attention: check, fill the parameters, launch.
#include "launch.h"
#include "ring_attention.cuh"

extern "C" int pyrf_ring_attention(int dtype, const void* q, const int64_t* q_strides, const void* keys,
                                   const int64_t* keys_strides, const void* values,
                                   const int64_t* values_strides, void* out, int64_t batch, int64_t heads,
                                   int64_t capacity, int64_t queries, int64_t length, int64_t head_dim,
                                   void* stream) {
  using namespace pyrf;
  Check check("ring_attention");
  check.dtype(dtype);
  check.head_dim(head_dim);
  check.sizes(batch, heads, capacity);
  check.range("queries", queries, 1, kMaxTokens);
  check.range("length", length, 1, capacity);
  check.pointer("q", q);
  check.pointer("keys", keys);
  check.pointer("values", values);
  check.pointer("out", out);

  RingAttentionParams params{};
  params.q_strides = check.heads_first("q", q_strides, batch, heads, queries);
  params.keys_strides = check.heads_first("keys", keys_strides, batch, heads, capacity);
  params.values_strides = check.heads_first("values", values_strides, batch, heads, capacity);
  if (!check.ok()) return check.status();
  params.q = q;
  params.keys = keys;
  params.values = values;
  params.out = out;
  params.heads = static_cast<int>(heads);
  params.queries = static_cast<int>(queries);
  params.length = static_cast<int>(length);
  constexpr double kLog2E = 1.4426950408889634;
  params.scale_log2 = static_cast<float>(kLog2E / std::sqrt(static_cast<double>(head_dim)));
  return dispatch(dtype, head_dim, [&](auto type, auto dim) {
    using Tile = RingTile<decltype(dim)::value>;
    const dim3 grid(static_cast<unsigned>((queries + Tile::kQueries - 1) / Tile::kQueries),
                    static_cast<unsigned>(heads), static_cast<unsigned>(batch));
    return launch("ring_attention", ring_attention_kernel<decltype(type), decltype(dim)::value>, grid,
                  Tile::kThreads, Tile::kSharedBytes, stream, params);
  });
}
