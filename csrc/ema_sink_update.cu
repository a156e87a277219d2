// Host side of ema_sink_update: check, fill the parameters, launch.
#include "ema_sink_update.cuh"
#include "launch.h"

extern "C" int pyrf_ema_sink_update(int dtype, void* keys, const int64_t* keys_strides, void* values,
                                    const int64_t* values_strides, void* key_master,
                                    const int64_t* key_master_strides, void* value_master,
                                    const int64_t* value_master_strides, const int64_t* slot,
                                    const float* turn, int64_t batch, int64_t heads, int64_t capacity,
                                    int64_t tokens, int64_t head_dim, int64_t time_pairs, double alpha,
                                    void* stream) {
  using namespace pyrf;
  Check check("ema_sink_update");
  check.dtype(dtype);
  check.head_dim(head_dim);
  check.sizes(batch, heads, capacity);
  check.slots(capacity, tokens);
  check.range("batch * heads", batch * heads, 1, kMaxGrid);
  check.range("time_pairs", time_pairs, 0, head_dim / 2);
  check.that(alpha >= 0.0 && alpha <= 1.0, "alpha must lie in [0, 1], got %g", alpha);
  check.pointer("keys", keys);
  check.pointer("values", values);
  check.pointer("key_master", key_master);
  check.pointer("value_master", value_master);
  check.pointer("slot", slot, sizeof *slot);
  check.pointer("turn", turn);

  EmaSinkParams params{};
  params.halves[0] = {keys, key_master, check.written("keys", keys_strides, batch, heads, capacity),
                      check.written("key_master", key_master_strides, batch, heads, tokens)};
  params.halves[1] = {values, value_master, check.written("values", values_strides, batch, heads, capacity),
                      check.written("value_master", value_master_strides, batch, heads, tokens)};
  if (!check.ok()) return check.status();
  params.slot = slot;
  params.turn = turn;
  params.heads = static_cast<int>(heads);
  params.tokens = static_cast<int>(tokens);
  params.slots = static_cast<int>(capacity / tokens);
  params.time_pairs = static_cast<int>(time_pairs);
  params.weight = static_cast<float>(1.0 - alpha);
  const int64_t vectors = tokens * head_dim / kVector;
  const dim3 grid(static_cast<unsigned>((vectors + kEmaThreads - 1) / kEmaThreads),
                  static_cast<unsigned>(batch * heads), 2);
  return dispatch(dtype, head_dim, [&](auto type, auto dim) {
    return launch("ema_sink_update", ema_sink_update_kernel<decltype(type), decltype(dim)::value>, grid,
                  kEmaThreads, 0, stream, params);
  });
}
