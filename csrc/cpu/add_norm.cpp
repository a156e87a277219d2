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

// norm(x) * weight + shift, without a null shift.
void norm(const float* x, const float* weight, const float* shift, float eps, bool rms, int64_t dim,
          float* normed) {
  const float inverse = 1.0f / static_cast<float>(dim);
  const float mean = rms ? 0.0f : inverse * sum_over(dim, [x](int64_t i) { return x[i]; });
  const float squares = sum_over(dim, [x, mean](int64_t i) { return (x[i] - mean) * (x[i] - mean); });
  const float scale = 1.0f / std::sqrt(squares * inverse + eps);
  for (int64_t i = 0; i < dim; ++i) normed[i] = (x[i] - mean) * scale * weight[i] + (shift ? shift[i] : 0.0f);
}

}  // namespace
}  // namespace pyrf::cpu

void pyrf_cpu_add_norm(pyrf_view y, pyrf_view residual, pyrf_view gate, pyrf_view bias, pyrf_view weight,
                       pyrf_view shift, double eps, int rms, int, pyrf_view sum, pyrf_view normed,
                       int threads) {
  using namespace pyrf::cpu;
  const int64_t dim = y.shape[y.dimensions - 1];
  int64_t rows = 1;
  for (int i = 0; i + 1 < y.dimensions; ++i) rows *= y.shape[i];
  const bool adds = residual.address || gate.address || bias.address;
  threads = threads_for(2 * rows * dim, threads);

#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < rows; ++row) {
    const auto own = [start = row * dim](const pyrf_view& x) {
      return x.address ? floats(x) + start : nullptr;
    };
    const float* x = own(y);
    if (adds) {
      float* total = own(sum.address ? sum : normed);
      add(x, own(residual), floats(gate), floats(bias), dim, total);
      x = total;
    }
    if (normed.address)
      norm(x, floats(weight), floats(shift), static_cast<float>(eps), rms, dim, own(normed));
  }
}
