// Python bindings of the native module. Knows no torch: a tensor comes as a tuple of its address, dtype,
// shape and strides, or as None.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <type_traits>
#include <vector>

#include "cpu/ops.h"
#ifdef PYRF_CUDA_ARCHS
#include "pyrf.h"
#endif

namespace py = pybind11;

namespace pybind11::detail {

template <>
struct type_caster<pyrf_view> {
  PYBIND11_TYPE_CASTER(pyrf_view, const_name("tuple[int, int, tuple[int, ...], tuple[int, ...]] | None"));

  bool load(handle from, bool) {
    value = {};
    if (from.is_none()) return true;
    if (!isinstance<tuple>(from) || len(from) != 4) return false;
    const auto view = reinterpret_borrow<tuple>(from);
    if (!isinstance<tuple>(view[2]) || !isinstance<tuple>(view[3])) return false;
    const tuple shape = view[2], strides = view[3];
    if (shape.size() != strides.size()) return false;
    for (const tuple& sizes : {shape, strides})
      for (const handle size : sizes) sizes_.push_back(size.cast<int64_t>());
    value.address = reinterpret_cast<void*>(view[0].cast<uintptr_t>());
    value.dtype = view[1].cast<int>();
    value.dimensions = static_cast<int>(shape.size());
    value.shape = sizes_.data();
    value.strides = sizes_.data() + shape.size();
    return true;
  }

 private:
  std::vector<int64_t> sizes_;  // lives until the call has returned
};

}  // namespace pybind11::detail

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

void bind_loops(py::module_ m) {
  const py::call_guard<py::gil_scoped_release> unlocked;
  m.def("add_norm", &pyrf_cpu_add_norm, unlocked);
  m.def("norm_rope_append", &pyrf_cpu_norm_rope_append, unlocked);
  m.def("ring_attention", &pyrf_cpu_ring_attention, unlocked);
  m.def("serves_ring_attention", &pyrf_cpu_serves_ring_attention);
}

#ifdef PYRF_CUDA_ARCHS
// A stream is an address in Python; everything else is what it is.
template <class T>
using InPython = std::conditional_t<std::is_same_v<T, void*>, uintptr_t, T>;

template <class T>
T in_c(InPython<T> x) {
  if constexpr (std::is_same_v<T, void*>) {
    return reinterpret_cast<void*>(x);
  } else {
    return x;
  }
}

template <class... Arguments>
void bind_kernel(py::module_& m, const char* name, int (*launch)(Arguments...)) {
  m.def(name, [launch](InPython<Arguments>... arguments) {
    const int status = launch(in_c<Arguments>(arguments)...);
    if (status == PYRF_BAD_ARGUMENT) throw py::value_error(pyrf_last_error());
    if (status != PYRF_OK) throw std::runtime_error(pyrf_last_error());
  });
}
#endif

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() =
      "Native part of pyrf. The kernels, with the arguments of csrc/pyrf.h, are there when CUDA was built.";
  m.def("build_info", build_info,
        "How this module was built: compiler, build type, C++ standard, and for which CUDA architectures.");
  m.attr("DTYPES") = py::dict(py::arg("bfloat16") = +PYRF_BF16, py::arg("float16") = +PYRF_FP16,
                              py::arg("float32") = +PYRF_FP32, py::arg("int16") = +PYRF_INT16,
                              py::arg("int64") = +PYRF_INT64,
                              py::arg("float8_e4m3fn") = +PYRF_E4M3);
  bind_loops(m.def_submodule("cpu", "Ops on a CPU in float32, with the arguments of csrc/cpu/ops.h."));
#ifdef PYRF_CUDA_ARCHS
  bind_kernel(m, "add_norm", &pyrf_add_norm);
  bind_kernel(m, "ema_sink_update", &pyrf_ema_sink_update);
  bind_kernel(m, "norm_rope_append", &pyrf_norm_rope_append);
  bind_kernel(m, "quantise_rows", &pyrf_quantise_rows);
  bind_kernel(m, "ring_attention", &pyrf_ring_attention);
  bind_kernel(m, "ring_attention_e4m3", &pyrf_ring_attention_e4m3);
#endif
}
