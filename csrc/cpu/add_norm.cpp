// add_norm on a CPU, row by row: a row stays in the first cache from the sum to the norm.
#include <cmath>

#include "ops.h"
#include "rows.h"

namespace pyrf::cpu {
namespace {

// residual + gate * y + bias; what is null is left out.
void add(const float* y, const float* residual, const float* gate, const float* bias, int64_t dim,
         float* sum) {
  for (int64_t i = 0; i < dim; ++i) sum[i] = gate ? gate[i] * y[i] : y[i];
  if (bias)
    for (int64_t i = 0; i < dim; ++i) sum[i] += bias[i];
  if (residual)
    for (int64_t i = 0; i < dim; ++i) sum[i] += residual[i];
}

void norm(const float* x, const AddNorm& p, float* normed) {
  const float inverse = 1.0f / static_cast<float>(p.dim);
  const float mean = p.rms ? 0.0f : inverse * sum_over(p.dim, [x](int64_t i) { return x[i]; });
  const float squares = sum_over(p.dim, [x, mean](int64_t i) { return (x[i] - mean) * (x[i] - mean); });
  const float scale = 1.0f / std::sqrt(squares * inverse + p.eps);
  for (int64_t i = 0; i < p.dim; ++i)
    normed[i] = (x[i] - mean) * scale * p.weight[i] + (p.shift ? p.shift[i] : 0.0f);
}

}  // namespace

void add_norm(const AddNorm& p, int threads) {
  const bool adds = p.residual || p.gate || p.bias;
  threads = threads_for(2 * p.rows * p.dim, threads);

#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t start = row * p.dim;
    const float* x = p.y + start;
    if (adds) {
      float* sum = (p.sum ? p.sum : p.normed) + start;
      add(x, p.residual ? p.residual + start : nullptr, p.gate, p.bias, p.dim, sum);
      x = sum;
    }
    if (p.normed) norm(x, p, p.normed + start);
  }
}

}  // namespace pyrf::cpu
