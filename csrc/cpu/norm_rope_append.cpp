// norm_rope_append on a CPU, token by token: what is read twice is still in the first cache.
#include <cmath>
#include <cstring>

#include "ops.h"
#include "rows.h"

namespace pyrf::cpu {
namespace {

// x * weight / sqrt(mean(x^2) + eps), each head's pairs turned by the token's table.
void norm_rotate(const float* x, const float* weight, const float* rope, float eps, int64_t heads,
                 int64_t head_dim, float* out, int64_t out_head) {
  const int64_t dim = heads * head_dim;
  const float squares = sum_over(dim, [x](int64_t i) { return x[i] * x[i]; });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t c = 0; c < head_dim; c += 2) {
      const float even = x[c] * scale * weight[c], odd = x[c + 1] * scale * weight[c + 1];
      out[c] = even * rope[c] - odd * rope[c + 1];
      out[c + 1] = even * rope[c + 1] + odd * rope[c];
    }
    x += head_dim;
    weight += head_dim;
    out += out_head;
  }
}

}  // namespace
}  // namespace pyrf::cpu

void pyrf_cpu_norm_rope_append(pyrf_view q, pyrf_view k, pyrf_view v, pyrf_view norm_q, pyrf_view norm_k,
                               double eps, pyrf_view rope, pyrf_view slot, pyrf_view keys, pyrf_view values,
                               pyrf_view q_out, int threads) {
  using namespace pyrf::cpu;
  const int64_t batch = keys.shape[0], heads = keys.shape[1], head_dim = keys.shape[3], tokens = q.shape[1];
  const int64_t rows = batch * tokens, dim = heads * head_dim;
  const int64_t place = *static_cast<const int64_t*>(slot.address) * tokens;  // of the chunk in the cache
  const int64_t key_head = keys.strides[1], value_head = values.strides[1];
  threads = threads_for(3 * rows * dim, threads);

#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t b = row / tokens, t = row % tokens;
    const auto projected = [b, t](const pyrf_view& x) {
      return floats(x) + b * x.strides[0] + t * x.strides[1];
    };
    const auto cached = [b, t, place](const pyrf_view& x) {
      return floats(x) + b * x.strides[0] + (place + t) * x.strides[2];
    };
    const float* table = floats(rope) + t * head_dim;
    const float epsilon = static_cast<float>(eps);
    norm_rotate(projected(q), floats(norm_q), table, epsilon, heads, head_dim, floats(q_out) + row * dim,
                head_dim);
    norm_rotate(projected(k), floats(norm_k), table, epsilon, heads, head_dim, cached(keys), key_head);
    for (int64_t head = 0; head < heads; ++head)
      std::memcpy(cached(values) + head * value_head, projected(v) + head * head_dim,
                  head_dim * sizeof(float));
  }
}
