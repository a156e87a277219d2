// Host side of ema_sink_update: check, fill the parameters, launch.
#include "ema_sink_update.cuh"
#include "launch.h"

extern "C" int pyrf_ema_sink_update(pyrf_view keys, pyrf_view values, pyrf_view key_master,
                                    pyrf_view value_master, pyrf_view slot, pyrf_view turn, int64_t tokens,
                                    double alpha, void* stream) {
  using namespace pyrf;
  Check check("ema_sink_update");
  check.dimensions("keys", keys, 4);
  check.dimensions("turn", turn, 2);
  if (!check.ok()) return check.status();
  const int dtype = keys.dtype, master_dtype = dtype == PYRF_BF16 ? PYRF_INT16 : PYRF_FP32;
  const int64_t batch = keys.shape[0], heads = keys.shape[1], capacity = keys.shape[2];
  const int64_t head_dim = keys.shape[3], time_pairs = turn.shape[0];
  const Shape cache{batch, heads, capacity, head_dim}, sink{batch, heads, tokens, head_dim};
  check.cache(keys);
  check.slots(capacity, tokens);
  check.range("batch * heads", batch * heads, 1, kMaxGrid);
  check.range("time_pairs", time_pairs, 0, head_dim / 2);
  check.that(alpha >= 0.0 && alpha <= 1.0, "alpha must lie in [0, 1], got %g", alpha);
  check.scalar("slot", slot, PYRF_INT64);
  check.contiguous("turn", turn, PYRF_FP32, {time_pairs, 2});

  EmaSinkParams params{};
  params.halves[0] = {keys.address, key_master.address, check.written("keys", keys, dtype, cache),
                      check.written("key_master", key_master, master_dtype, sink)};
  params.halves[1] = {values.address, value_master.address, check.written("values", values, dtype, cache),
                      check.written("value_master", value_master, master_dtype, sink)};
  if (!check.ok()) return check.status();
  params.slot = static_cast<const int64_t*>(slot.address);
  params.turn = static_cast<const float*>(turn.address);
  params.heads = static_cast<int>(heads);
  params.tokens = static_cast<int>(tokens);
  params.slots = static_cast<int>(capacity / tokens);
  params.time_pairs = static_cast<int>(time_pairs);
  params.weight = static_cast<float>(1.0 - alpha);
  const int64_t vectors = tokens * head_dim / kVector;
  const dim3 grid(static_cast<unsigned>((vectors + kEmaThreads - 1) / kEmaThreads),
                  static_cast<unsigned>(batch * heads), 2);
  const auto start = [&](auto type, auto dim) {
    return launch("ema_sink_update", ema_sink_update_kernel<decltype(type), decltype(dim)::value>, grid,
                  kEmaThreads, 0, stream, params);
  };
  return dtype == PYRF_E4M3 ? dispatch_head_dim(E4m3{}, head_dim, start) : dispatch(dtype, head_dim, start);
}
