// The ops on a CPU, in float32. The arguments are those of pyrf.h, in host memory, with a number of threads
// in place of the stream. Nothing is checked here: `pyrf/ops` does. Up to `threads` of OpenMP's threads work;
// results do not depend on how many.
#pragma once

#include "../params.h"
#include "../view.h"

extern "C" {

// Without the activation, as `silu` must be 0, and without scales.
void pyrf_cpu_add_norm(pyrf_view y, pyrf_view residual, pyrf_view gate, pyrf_view bias, pyrf_view weight,
                       pyrf_view shift, double eps, int rms, int silu, pyrf_view sum, pyrf_view normed,
                       int threads);

void pyrf_cpu_norm_rope_append(pyrf_view q, pyrf_view k, pyrf_view v, pyrf_view norm_q, pyrf_view norm_k,
                               double eps, pyrf_view rope, pyrf_view slot, pyrf_view keys, pyrf_view values,
                               pyrf_view q_out, int threads);

// Whether ring_attention has loops for this machine (x86 with AVX-512) and these heads (multiples of 32).
bool pyrf_cpu_serves_ring_attention(int64_t head_dim);

// Only where it serves.
void pyrf_cpu_ring_attention(pyrf_view q, pyrf_view keys, pyrf_view values, int64_t length, pyrf_view out,
                             int threads);
}

namespace pyrf::cpu {

inline float* floats(const pyrf_view& x) { return static_cast<float*>(x.address); }

// Of [batch, heads, tokens, head_dim].
inline Strides heads_first(const pyrf_view& x) { return {x.strides[0], x.strides[1], x.strides[2]}; }

}  // namespace pyrf::cpu
