// Host side of ring_attention: check, choose the instance, launch.
#include "ring_attention.cuh"
#include "ring_launch.h"

extern "C" int pyrf_ring_attention(pyrf_view q, pyrf_view keys, pyrf_view values, int64_t length,
                                   pyrf_view out, void* stream) {
  using namespace pyrf;
  Check check("ring_attention");
  const RingAttentionParams params = check_ring(check, q, keys, values, q.dtype, length, out);
  if (!check.ok()) return check.status();
  return dispatch(q.dtype, keys.shape[3], [&](auto type, auto dim) {
    constexpr int kHeadDim = decltype(dim)::value;
    return launch_ring<RingTile<decltype(type), kHeadDim>>(
        "ring_attention", ring_attention_kernel<decltype(type), kHeadDim>, params, keys.shape[0], stream);
  });
}
