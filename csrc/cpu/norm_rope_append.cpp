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

void norm_rope_append(const NormRope& p, int threads) {
  const int64_t rows = p.batch * p.tokens, dim = p.heads * p.head_dim;
  threads = threads_for(3 * rows * dim, threads);

#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t b = row / p.tokens, t = row % p.tokens;
    const float* rope = p.rope + t * p.head_dim;
    const float* q = p.q + b * p.q_strides.batch + t * p.q_strides.token;
    const float* k = p.k + b * p.k_strides.batch + t * p.k_strides.token;
    const float* v = p.v + b * p.v_strides.batch + t * p.v_strides.token;
    float* keys = p.keys + b * p.keys_strides.batch + t * p.keys_strides.token;
    float* values = p.values + b * p.values_strides.batch + t * p.values_strides.token;
    norm_rotate(q, p.norm_q, rope, p.eps, p.heads, p.head_dim, p.q_out + row * dim, p.head_dim);
    norm_rotate(k, p.norm_k, rope, p.eps, p.heads, p.head_dim, keys, p.keys_strides.head);
    for (int64_t head = 0; head < p.heads; ++head)
      std::memcpy(values + head * p.values_strides.head, v + head * p.head_dim, p.head_dim * sizeof(float));
  }
}

}  // namespace pyrf::cpu
