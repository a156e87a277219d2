// Host side of quantise_rows: check, fill the parameters, launch.
#include "quantise_rows.cuh"

#include <algorithm>

#include "launch.h"

namespace {

constexpr int64_t kMaxRow = 14336;

// Call `run` with the least of the row widths that the kernel is built for which holds `dim`.
template <class Run>
int with_width(int64_t dim, Run run) {
  if (dim <= 2048) return run(std::integral_constant<int, 2048>{});
  if (dim <= 6144) return run(std::integral_constant<int, 6144>{});
  if (dim <= 10240) return run(std::integral_constant<int, 10240>{});
  return run(std::integral_constant<int, kMaxRow>{});
}

}  // namespace

extern "C" int pyrf_quantise_rows(pyrf_view x, int gelu, pyrf_view rows, pyrf_view scales, void* stream) {
  using namespace pyrf;
  Check check("quantise_rows");
  check.dimensions("x", x, std::max(x.dimensions, 1));
  if (!check.ok()) return check.status();
  const Shape shape(x.shape, x.shape + x.dimensions);
  const int64_t dim = shape.back(), count = check.rows(shape);
  check.elements(x.dtype);
  check.range("dim", dim, kVector, kMaxRow);
  check.that(dim % kVector == 0, "dim must be a multiple of 8, got %d", static_cast<int>(dim));
  check.contiguous("x", x, x.dtype, shape);
  check.contiguous("rows", rows, PYRF_E4M3, shape);
  check.contiguous("scales", scales, PYRF_FP32, scale_shape(shape));
  if (!check.ok()) return check.status();

  QuantiseRowsParams params{};
  params.x = x.address;
  params.rows = rows.address;
  params.scales = static_cast<float*>(scales.address);
  params.vectors = static_cast<int>(dim / kVector);
  params.gelu = gelu;
  const dim3 grid(static_cast<unsigned>(count));
  return with_width(dim, [&](auto width) {
    constexpr int kMaxDim = decltype(width)::value;
    const auto kernel = x.dtype == PYRF_BF16 ? quantise_rows_kernel<Bf16, kMaxDim>
                                             : quantise_rows_kernel<Fp16, kMaxDim>;
    return launch("quantise_rows", kernel, grid, kQuantiseThreads, kQuantiseSharedBytes, stream, params);
  });
}
