// Python bindings of the native module. Knows no torch: tensors come as addresses, sizes and strides.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>

#include "cpu/ops.h"
#ifdef PYRF_CUDA_ARCHS
#include "pyrf.h"
#endif

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["compiler"] = PYRF_COMPILER;
  info["build_type"] = PYRF_BUILD_TYPE;
  info["cxx_standard"] = __cplusplus;
#ifdef PYRF_CUDA_ARCHS
  info["cuda"] = true;
  info["cuda_version"] = PYRF_CUDA_VERSION;
  info["cuda_archs"] = PYRF_CUDA_ARCHS;
#else
  info["cuda"] = false;
#endif
  return info;
}

using Strides3 = std::array<int64_t, 3>;
using Strides4 = std::array<int64_t, 4>;

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Of [batch, tokens, heads * head_dim] and of [batch, heads, tokens, head_dim].
pyrf::Strides tokens_first(const Strides3& given, int64_t head_dim) { return {given[0], head_dim, given[1]}; }
pyrf::Strides heads_first(const Strides4& given) { return {given[0], given[1], given[2]}; }

void bind_cpu_ops(py::module_ m) {
  m.def(
      "add_norm",
      [](uintptr_t y, uintptr_t residual, uintptr_t gate, uintptr_t bias, uintptr_t weight, uintptr_t shift,
         double eps, bool rms, uintptr_t sum, uintptr_t normed, int64_t rows, int64_t dim, int threads) {
        pyrf::cpu::add_norm(
            {at<float>(y), at<float>(residual), at<float>(gate), at<float>(bias), at<float>(weight),
             at<float>(shift), at<float>(sum), at<float>(normed), rows, dim, static_cast<float>(eps), rms},
            threads);
      },
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "norm_rope_append",
      [](uintptr_t q, Strides3 q_strides, uintptr_t k, Strides3 k_strides, uintptr_t v, Strides3 v_strides,
         uintptr_t norm_q, uintptr_t norm_k, double eps, uintptr_t rope, uintptr_t keys,
         Strides4 keys_strides, uintptr_t values, Strides4 values_strides, uintptr_t q_out, int64_t batch,
         int64_t heads, int64_t tokens, int64_t head_dim, int threads) {
        pyrf::cpu::norm_rope_append(
            {at<float>(q), at<float>(k), at<float>(v), at<float>(norm_q), at<float>(norm_k), at<float>(rope),
             at<float>(keys), at<float>(values), at<float>(q_out), tokens_first(q_strides, head_dim),
             tokens_first(k_strides, head_dim), tokens_first(v_strides, head_dim), heads_first(keys_strides),
             heads_first(values_strides), batch, heads, tokens, head_dim, static_cast<float>(eps)},
            threads);
      },
      py::call_guard<py::gil_scoped_release>());
  m.def("serves_ring_attention", &pyrf::cpu::serves_ring_attention);
  m.def(
      "ring_attention",
      [](uintptr_t q, Strides4 q_strides, uintptr_t keys, Strides4 keys_strides, uintptr_t values,
         Strides4 values_strides, uintptr_t out, int64_t batch, int64_t heads, int64_t queries,
         int64_t length, int64_t head_dim, int threads) {
        const float scale_log2 = static_cast<float>(1.4426950408889634 / std::sqrt(head_dim));
        pyrf::cpu::ring_attention(
            {at<float>(q), at<float>(keys), at<float>(values), at<float>(out), heads_first(q_strides),
             heads_first(keys_strides), heads_first(values_strides), batch, heads, queries, length, head_dim,
             scale_log2},
            threads);
      },
      py::call_guard<py::gil_scoped_release>());
}

#ifdef PYRF_CUDA_ARCHS
void raise_unless_ok(int status) {
  if (status == PYRF_OK) return;
  if (status == PYRF_BAD_ARGUMENT) throw py::value_error(pyrf_last_error());
  throw std::runtime_error(pyrf_last_error());
}

void bind_ops(py::module_& m) {
  m.def("add_norm", [](int dtype, uintptr_t y, uintptr_t residual, uintptr_t gate, uintptr_t bias,
                       uintptr_t weight, uintptr_t shift, double eps, bool rms, bool silu, uintptr_t sum,
                       uintptr_t normed, int64_t rows, int64_t dim, uintptr_t stream) {
    raise_unless_ok(pyrf_add_norm(dtype, at<void>(y), at<void>(residual), at<void>(gate), at<void>(bias),
                                  at<void>(weight), at<void>(shift), eps, rms, silu, at<void>(sum),
                                  at<void>(normed), rows, dim, at<void>(stream)));
  });
  m.def("ema_sink_update", [](int dtype, uintptr_t keys, Strides4 keys_strides, uintptr_t values,
                              Strides4 values_strides, uintptr_t key_master, Strides4 key_master_strides,
                              uintptr_t value_master, Strides4 value_master_strides, uintptr_t slot,
                              uintptr_t turn, int64_t batch, int64_t heads, int64_t capacity, int64_t tokens,
                              int64_t head_dim, int64_t time_pairs, double alpha, uintptr_t stream) {
    raise_unless_ok(pyrf_ema_sink_update(
        dtype, at<void>(keys), keys_strides.data(), at<void>(values), values_strides.data(),
        at<void>(key_master), key_master_strides.data(), at<void>(value_master), value_master_strides.data(),
        at<int64_t>(slot), at<float>(turn), batch, heads, capacity, tokens, head_dim, time_pairs, alpha,
        at<void>(stream)));
  });
  m.def(
      "norm_rope_append",
      [](int dtype, uintptr_t q, Strides3 q_strides, uintptr_t k, Strides3 k_strides, uintptr_t v,
         Strides3 v_strides, uintptr_t norm_q, uintptr_t norm_k, double eps, uintptr_t rope, uintptr_t slot,
         uintptr_t keys, Strides4 keys_strides, uintptr_t values, Strides4 values_strides, uintptr_t q_out,
         int64_t batch, int64_t heads, int64_t capacity, int64_t tokens, int64_t head_dim, uintptr_t stream) {
        raise_unless_ok(pyrf_norm_rope_append(
            dtype, at<void>(q), q_strides.data(), at<void>(k), k_strides.data(), at<void>(v),
            v_strides.data(), at<void>(norm_q), at<void>(norm_k), eps, at<float>(rope), at<int64_t>(slot),
            at<void>(keys), keys_strides.data(), at<void>(values), values_strides.data(), at<void>(q_out),
            batch, heads, capacity, tokens, head_dim, at<void>(stream)));
      });
  m.def("ring_attention",
        [](int dtype, uintptr_t q, Strides4 q_strides, uintptr_t keys, Strides4 keys_strides,
           uintptr_t values, Strides4 values_strides, uintptr_t out, int64_t batch, int64_t heads,
           int64_t capacity, int64_t queries, int64_t length, int64_t head_dim, uintptr_t stream) {
          raise_unless_ok(pyrf_ring_attention(dtype, at<void>(q), q_strides.data(), at<void>(keys),
                                              keys_strides.data(), at<void>(values), values_strides.data(),
                                              at<void>(out), batch, heads, capacity, queries, length,
                                              head_dim, at<void>(stream)));
        });
}
#endif

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() =
      "Native part of pyrf. The kernels, with the arguments of csrc/pyrf.h, are there when CUDA was built.";
  m.def("build_info", build_info,
        "How this module was built: compiler, build type, C++ standard, and for which CUDA architectures.");
  bind_cpu_ops(m.def_submodule("cpu", "Ops on a CPU in float32, with the arguments of csrc/cpu/ops.h."));
#ifdef PYRF_CUDA_ARCHS
  m.attr("BF16") = static_cast<int>(PYRF_BF16);
  m.attr("FP16") = static_cast<int>(PYRF_FP16);
  bind_ops(m);
#endif
}
