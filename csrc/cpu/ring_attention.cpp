// ring_attention on a CPU: heads, or parts of their rows, are shared out among threads.
#include <algorithm>
#include <vector>

#include "attention_rows.h"
#include "ops.h"

using namespace pyrf::cpu;

namespace {

constexpr int64_t kThreadWork = 1'000'000;  // multiplications that are worth a thread, about 20 us

}  // namespace

bool pyrf_cpu_serves_ring_attention([[maybe_unused]] int64_t head_dim) {
#ifdef PYRF_AVX512
  static const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  return avx512 && head_dim % kColumns == 0;
#else
  return false;
#endif
}

#ifdef PYRF_AVX512
void pyrf_cpu_ring_attention(pyrf_view q, pyrf_view keys, pyrf_view values, int64_t length, pyrf_view out,
                             int threads) {
  RingAttention p;
  p.q = floats(q);
  p.keys = floats(keys);
  p.values = floats(values);
  p.out = floats(out);
  p.q_strides = heads_first(q);
  p.keys_strides = heads_first(keys);
  p.values_strides = heads_first(values);
  p.batch = q.shape[0];
  p.heads = q.shape[1];
  p.queries = q.shape[2];
  p.length = length;
  p.head_dim = q.shape[3];
  p.scale_log2 = pyrf::scale_log2(p.head_dim);
  const int64_t all = p.batch * p.heads, work = 2 * all * p.queries * p.length * p.head_dim;
  threads = static_cast<int>(std::clamp<int64_t>(work / kThreadWork, 1, threads));
  // Every part packs its head's keys anew, so heads are cut only where whole ones leave threads idle.
  const int64_t wanted = all % threads == 0 ? 1 : (4 * threads + all - 1) / all;
  const int64_t rows = std::max<int64_t>((p.queries + wanted - 1) / wanted, kRows);
  const int64_t parts = (p.queries + rows - 1) / rows;

#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < all * parts; ++i) {
    thread_local std::vector<float> memory;
    memory.resize((kKeyBlock + kRows) * p.head_dim + kRows * kKeyBlock + 2 * rows);
    AttentionScratch scratch;
    scratch.keys = memory.data();
    scratch.queries = scratch.keys + kKeyBlock * p.head_dim;
    scratch.scores = scratch.queries + kRows * p.head_dim;
    scratch.maxima = scratch.scores + kRows * kKeyBlock;
    scratch.sums = scratch.maxima + rows;
    const int64_t head = i / parts, first = i % parts * rows;
    attention_rows(p, head / p.heads, head % p.heads, first, std::min(first + rows, p.queries), scratch);
  }
}
#else
void pyrf_cpu_ring_attention(pyrf_view, pyrf_view, pyrf_view, int64_t, pyrf_view, int) {}
#endif
