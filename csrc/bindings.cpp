// Python bindings of the native module. Knows no torch.
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "Native part of pyrf.";
  m.def(
      "build_info",
      [] {
        py::dict info;
        info["compiler"] = PYRF_COMPILER;
        info["build_type"] = PYRF_BUILD_TYPE;
        info["cxx_standard"] = __cplusplus;
        info["cuda"] = false;  // no CUDA kernel is built in yet
        return info;
      },
      "How this module was built: compiler, build type, C++ standard, CUDA.");
}
