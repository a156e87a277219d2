// Host side of add_norm: check, fill the parameters, launch.
#include "add_norm.cuh"

#include "launch.h"

namespace {

constexpr int64_t kMaxRows = (int64_t{1} << 31) - 1;

// Call `run` with the least of the row widths that the kernel is built for which holds `dim`.
template <class Run>
int with_width(int64_t dim, Run run) {
  if (dim <= 128) return run(std::integral_constant<int, 128>{});
  if (dim <= 256) return run(std::integral_constant<int, 256>{});
  if (dim <= 512) return run(std::integral_constant<int, 512>{});
  if (dim <= 1536) return run(std::integral_constant<int, 1536>{});
  return run(std::integral_constant<int, 5120>{});
}

}  // namespace

extern "C" int pyrf_add_norm(int dtype, const void* y, const void* residual, const void* gate,
                             const void* bias, const void* weight, const void* shift, double eps, int rms,
                             int silu, void* sum, void* normed, int64_t rows, int64_t dim, void* stream) {
  using namespace pyrf;
  Check check("add_norm");
  check.dtype(dtype);
  check.range("rows", rows, 1, kMaxRows);
  check.range("dim", dim, kVector, 5120);
  check.that(dim % kVector == 0, "dim must be a multiple of 8, got %d", static_cast<int>(dim));
  check.that(eps >= 0.0, "eps must not be negative, got %g", eps);
  check.pointer("y", y);
  check.optional("residual", residual);
  check.optional("gate", gate);
  check.optional("bias", bias);
  check.optional("weight", weight);
  check.optional("shift", shift);
  check.optional("sum", sum);
  check.optional("normed", normed);
  check.that(residual != nullptr || weight != nullptr, "residual or weight must be given");
  check.that(shift == nullptr || weight != nullptr, "shift must come with a weight");
  check.that((sum != nullptr) == (residual != nullptr),
             "sum must be given where residual is, and only there");
  check.that((normed != nullptr) == (weight != nullptr),
             "normed must be given where weight is, and only there");
  if (!check.ok()) return check.status();

  AddNormParams params{};
  params.y = y;
  params.residual = residual;
  params.gate = gate;
  params.bias = bias;
  params.weight = weight;
  params.shift = shift;
  params.sum = sum;
  params.normed = normed;
  params.rows = rows;
  params.vectors = static_cast<int>(dim / kVector);
  params.inverse_dim = 1.0f / static_cast<float>(dim);
  params.eps = static_cast<float>(eps);
  params.rms = rms;
  params.silu = silu;
  return with_width(dim, [&](auto width) {
    constexpr int kMaxDim = decltype(width)::value;
    constexpr int kBlockRows = AddNormTile<kMaxDim>::kBlockRows;
    const dim3 grid(static_cast<unsigned>((rows + kBlockRows - 1) / kBlockRows));
    const auto kernel = dtype == PYRF_BF16 ? add_norm_kernel<Bf16, kMaxDim> : add_norm_kernel<Fp16, kMaxDim>;
    return launch("add_norm", kernel, grid, kAddNormThreads, 0, stream, params);
  });
}
