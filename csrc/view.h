// A tensor as the native module takes it: nothing of torch, so one build serves all of its versions.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pyrf_dtype {
  PYRF_BF16 = 0,
  PYRF_FP16 = 1,
  PYRF_FP32 = 2,
  PYRF_INT16 = 3,
  PYRF_INT64 = 4,
  PYRF_E4M3 = 5,
};

typedef struct {
  void* address;  // null where there is no tensor
  int dtype;
  int dimensions;
  const int64_t* shape;    // [dimensions]
  const int64_t* strides;  // [dimensions], in elements
} pyrf_view;

#ifdef __cplusplus
}
#endif
