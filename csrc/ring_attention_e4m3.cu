// Host side of ring_attention_e4m3: check, choose the instance, launch.
#include "ring_attention_e4m3.cuh"
#include "ring_launch.h"

extern "C" int pyrf_ring_attention_e4m3(pyrf_view q, pyrf_view keys, pyrf_view values, int64_t length,
                                        pyrf_view out, void* stream) {
  using namespace pyrf;
  Check check("ring_attention_e4m3");
  const RingAttentionParams params = check_ring(check, q, keys, values, PYRF_E4M3, length, out);
  if (!check.ok()) return check.status();
  return dispatch(q.dtype, keys.shape[3], [&](auto type, auto dim) {
    constexpr int kHeadDim = decltype(dim)::value;
    return launch_ring<RingTile<E4m3, kHeadDim>>(
        "ring_attention_e4m3", ring_attention_e4m3_kernel<decltype(type), kHeadDim>, params, keys.shape[0],
        stream);
  });
}
