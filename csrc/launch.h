// Start a kernel, or say why it did not start.
#pragma once

#include <type_traits>

#include "check.h"
#include "ptx.h"

namespace pyrf {

// Call `run` with a value of an element type and one of the head_dim's integral constant.
template <class T, class Run>
int dispatch_head_dim(T type, int64_t head_dim, Run run) {
  constexpr std::integral_constant<int, 64> k64;
  constexpr std::integral_constant<int, 128> k128;
  return head_dim == 64 ? run(type, k64) : run(type, k128);
}

// The same with the element type of 16 bits that the dtype says.
template <class Run>
int dispatch(int dtype, int64_t head_dim, Run run) {
  return dtype == PYRF_BF16 ? dispatch_head_dim(Bf16{}, head_dim, run)
                            : dispatch_head_dim(Fp16{}, head_dim, run);
}

#ifdef PYRF_EMULATE

template <class Params>
int launch(const char* op, void (*kernel)(Params), dim3 grid, int threads, int shared_bytes, void*,
           const Params& params) {
  struct Call {
    void (*kernel)(Params);
    const Params& params;
  } call{kernel, params};
  const char* error =
      emulator::run([](void* x) { static_cast<Call*>(x)->kernel(static_cast<Call*>(x)->params); }, &call,
                    grid, threads, shared_bytes);
  return error == nullptr ? PYRF_OK : fail(PYRF_LAUNCH_FAILED, "%s: %s", op, error);
}

#else

// In terms of what to do, for what a user meets first: a machine without a device this build can use.
inline int launch_failed(const char* op, cudaError_t error) {
  cudaGetLastError();  // reported here, and not to whoever asks next
  const char* advice = "";
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice) {
    advice = "; pyrf's CUDA kernels need an NVIDIA GPU and its driver";
  } else if (error == cudaErrorNoKernelImageForDevice) {
    advice = "; pyrf was not built for this GPU's architecture";
  }
  return fail(PYRF_LAUNCH_FAILED, "%s: %s: %s%s", op, cudaGetErrorName(error), cudaGetErrorString(error),
              advice);
}

template <class Params>
int launch(const char* op, void (*kernel)(Params), dim3 grid, int threads, int shared_bytes, void* stream,
           const Params& params) {
  constexpr int kSharedByDefault = 48 * 1024;
  if (shared_bytes > kSharedByDefault) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return launch_failed(op, error);
  }
  void* arguments[] = {const_cast<Params*>(&params)};
  const cudaError_t error = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, dim3(threads),
                                             arguments, shared_bytes, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? PYRF_OK : launch_failed(op, error);
}

#endif

}  // namespace pyrf
