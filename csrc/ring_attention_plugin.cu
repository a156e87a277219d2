// ring_attention as TensorRT calls a plugin's kernel: every pointer and number a parameter of its own, inputs
// first and the output last. Not part of the native module: `pyrf.export.tensorrt.plugin` compiles it to PTX,
// and TensorRT keeps that in the engine.
//
// The length is read on the device, so one engine and one CUDA graph serve all lengths of the cache.
#include "ring_attention.cuh"

namespace pyrf {

template <int kHeadDim>
constexpr float kScaleLog2 = scale_log2(kHeadDim);

template <class T, int kHeadDim>
PYRF_DEVICE void attend(const void* q, const void* keys, const void* values, const int64_t* length, int heads,
                        int queries, int capacity, void* out) {
  const int64_t valid = *length;
  if (valid < 1 || valid > capacity) return;
  const auto contiguous = [&](int64_t tokens) {
    return Strides{heads * tokens * kHeadDim, tokens * kHeadDim, kHeadDim};
  };
  RingAttentionParams params{};
  params.q = q;
  params.keys = keys;
  params.values = values;
  params.out = out;
  params.q_strides = contiguous(queries);
  params.keys_strides = params.values_strides = contiguous(capacity);
  params.heads = heads;
  params.queries = queries;
  params.length = static_cast<int>(valid);
  params.scale_log2 = kScaleLog2<kHeadDim>;
  ring_attention_block<RingRows<T, kHeadDim>>(params);
}

}  // namespace pyrf

#define PYRF_PLUGIN(name, type, head_dim)                                                           \
  extern "C" __global__ void __launch_bounds__(pyrf::RingTile<pyrf::type, head_dim>::kThreads)      \
      name##_##head_dim(const void* q, const void* keys, const void* values, const int64_t* length, \
                        int32_t heads, int32_t queries, int32_t capacity, void* out) {              \
    pyrf::attend<pyrf::type, head_dim>(q, keys, values, length, heads, queries, capacity, out);     \
  }

PYRF_PLUGIN(pyrf_ring_attention_bfloat16, Bf16, 64)
PYRF_PLUGIN(pyrf_ring_attention_bfloat16, Bf16, 128)
PYRF_PLUGIN(pyrf_ring_attention_float16, Fp16, 64)
PYRF_PLUGIN(pyrf_ring_attention_float16, Fp16, 128)
