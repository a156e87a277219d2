// Host side of add_norm: check, fill the parameters, launch.
#include <algorithm>

#include "add_norm.cuh"
#include "launch.h"

namespace {

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

extern "C" int pyrf_add_norm(pyrf_view y, pyrf_view residual, pyrf_view gate, pyrf_view bias,
                             pyrf_view weight, pyrf_view shift, double eps, int rms, int silu, pyrf_view sum,
                             pyrf_view normed, pyrf_view scales, void* stream) {
  using namespace pyrf;
  Check check("add_norm");
  check.dimensions("y", y, std::max(y.dimensions, 1));
  if (!check.ok()) return check.status();
  const int dtype = y.dtype;
  const Shape shape(y.shape, y.shape + y.dimensions);
  const int64_t dim = shape.back(), rows = check.rows(shape);
  const bool quantises = scales.address != nullptr;
  check.elements(dtype);
  check.range("dim", dim, kVector, 5120);
  check.that(dim % kVector == 0, "dim must be a multiple of 8, got %d", static_cast<int>(dim));
  check.that(eps >= 0.0, "eps must not be negative, got %g", eps);
  check.contiguous("y", y, dtype, shape);
  check.optional("residual", residual, dtype, shape);
  check.optional("gate", gate, dtype, {dim});
  check.optional("bias", bias, dtype, {dim});
  check.optional("weight", weight, dtype, {dim});
  check.optional("shift", shift, dtype, {dim});
  check.optional("sum", sum, dtype, shape);
  check.optional("normed", normed, quantises ? PYRF_E4M3 : dtype, shape);
  check.optional("scales", scales, PYRF_FP32, scale_shape(shape));
  const bool adds = residual.address != nullptr, norms = weight.address != nullptr;
  check.that(adds || norms, "residual or weight must be given");
  check.that(norms || shift.address == nullptr, "shift must come with a weight");
  check.that((sum.address != nullptr) == adds, "sum must be given where residual is, and only there");
  check.that((normed.address != nullptr) == norms, "normed must be given where weight is, and only there");
  check.that(norms || !quantises, "scales must come with a weight");
  if (!check.ok()) return check.status();

  AddNormParams params{};
  params.y = y.address;
  params.residual = residual.address;
  params.gate = gate.address;
  params.bias = bias.address;
  params.weight = weight.address;
  params.shift = shift.address;
  params.sum = sum.address;
  params.normed = normed.address;
  params.scales = static_cast<float*>(scales.address);
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
    const auto start = [&](auto type, auto out) {
      return launch("add_norm", add_norm_kernel<decltype(type), kMaxDim, decltype(out)>, grid,
                    kAddNormThreads, 0, stream, params);
    };
    if (dtype == PYRF_BF16) return quantises ? start(Bf16{}, E4m3{}) : start(Bf16{}, Bf16{});
    return quantises ? start(Fp16{}, E4m3{}) : start(Fp16{}, Fp16{});
  });
}
