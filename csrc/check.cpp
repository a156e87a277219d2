#include "check.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <string>

namespace pyrf {
namespace {

thread_local char last_error[512];

const char* dtype_name(int dtype) {
  const char* const names[] = {"bfloat16", "float16", "float32", "int16", "int64", "e4m3"};
  return dtype >= PYRF_BF16 && dtype <= PYRF_E4M3 ? names[dtype] : "of an unknown dtype";
}

std::string text(const Shape& shape) {
  std::string words;
  for (const int64_t size : shape) words += (words.empty() ? "" : ", ") + std::to_string(size);
  return "[" + words + "]";
}

// A dimension's stride; 0 for a size of 1, where frameworks put anything.
int64_t stride(const pyrf_view& x, int dimension) {
  return x.shape[dimension] == 1 ? 0 : x.strides[dimension];
}

}  // namespace

Shape scale_shape(Shape rows) {
  rows.back() = 1;
  return rows;
}

int fail(int status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

void Check::that(bool holds, const char* format, ...) {
  if (holds || !ok()) return;
  char text[384];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  status_ = fail(PYRF_BAD_ARGUMENT, "%s: %s", op_, text);
}

void Check::range(const char* name, int64_t given, int64_t low, int64_t high) {
  that(given >= low && given <= high, "%s must lie in %" PRId64 "..%" PRId64 ", got %" PRId64, name, low,
       high, given);
}

void Check::dimensions(const char* name, const pyrf_view& x, int count) {
  that(x.address != nullptr || x.dimensions > 0, "%s must be a device pointer, got null", name);
  that(x.dimensions == count, "%s must have %d dimensions, got %d", name, count, x.dimensions);
}

void Check::elements(int dtype) {
  that(dtype == PYRF_BF16 || dtype == PYRF_FP16, "dtype must be %d (bfloat16) or %d (float16), got %d",
       PYRF_BF16, PYRF_FP16, dtype);
}

void Check::cache(const pyrf_view& keys) {
  if (keys.dtype != PYRF_E4M3) elements(keys.dtype);
  that(keys.shape[3] == 64 || keys.shape[3] == 128, "head_dim must be 64 or 128, got %" PRId64,
       keys.shape[3]);
  range("batch", keys.shape[0], 1, kMaxGrid);
  range("heads", keys.shape[1], 1, kMaxGrid);
  range("capacity", keys.shape[2], 1, kMaxTokens);
}

int64_t Check::rows(const Shape& shape) {
  constexpr int64_t kMaxRows = (int64_t{1} << 31) - 1;
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  range("rows", rows, 1, kMaxRows);
  return rows;
}

void Check::slots(int64_t capacity, int64_t tokens) {
  range("tokens", tokens, 1, kMaxTokens);
  that(tokens > 0 && capacity % tokens == 0,
       "capacity must be a multiple of a slot's %" PRId64 " tokens, got %" PRId64, tokens, capacity);
}

void Check::tensor(const char* name, const pyrf_view& x, int dtype, const Shape& shape, int64_t alignment) {
  that(x.address != nullptr, "%s must be a device pointer, got null", name);
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.address) % alignment);
  that(past == 0, "%s must be aligned to %" PRId64 " bytes, got an address %" PRId64 " bytes past", name,
       alignment, past);
  that(x.dtype == dtype, "%s must be %s, got %s", name, dtype_name(dtype), dtype_name(x.dtype));
  if (!ok()) return;
  const Shape given(x.shape, x.shape + x.dimensions);
  if (given != shape) that(false, "%s must be %s, got %s", name, text(shape).c_str(), text(given).c_str());
}

void Check::scalar(const char* name, const pyrf_view& x, int dtype) {
  tensor(name, x, dtype, {}, sizeof(int64_t));
}

void Check::contiguous(const char* name, const pyrf_view& x, int dtype, const Shape& shape) {
  tensor(name, x, dtype, shape, kAlignment);
  int64_t expected = 1;
  for (int i = x.dimensions - 1; ok() && i >= 0; expected *= x.shape[i--])
    that(x.shape[i] == 1 || x.strides[i] == expected,
         "%s must be contiguous, got stride %" PRId64 " in dimension %d", name, x.strides[i], i);
}

void Check::optional(const char* name, const pyrf_view& x, int dtype, const Shape& shape) {
  if (x.address != nullptr) contiguous(name, x, dtype, shape);
}

void Check::strided(const char* name, const pyrf_view& x, int dtype, const Shape& shape) {
  tensor(name, x, dtype, shape, kAlignment);
  const int last = x.dimensions - 1, unit = dtype == PYRF_E4M3 ? 16 : 8;
  if (!ok()) return;
  that(x.strides[last] == 1, "%s must be contiguous in its last dimension (stride 1), got stride %" PRId64,
       name, x.strides[last]);
  for (int i = 0; i < last; ++i)
    that(stride(x, i) >= 0 && stride(x, i) % unit == 0,
         "%s must have strides of whole 16 bytes (multiples of %d elements), got %" PRId64 " in dimension %d",
         name, unit, stride(x, i), i);
}

Strides Check::heads_first(const char* name, const pyrf_view& x, int dtype, const Shape& shape) {
  strided(name, x, dtype, shape);
  return ok() ? Strides{stride(x, 0), stride(x, 1), stride(x, 2)} : Strides{};
}

Strides Check::written(const char* name, const pyrf_view& x, int dtype, const Shape& shape) {
  const Strides strides = heads_first(name, x, dtype, shape);
  for (int i = 0; ok() && i < 3; ++i)
    that(x.shape[i] == 1 || x.strides[i] != 0, "%s is written and must not be expanded, got a stride of 0",
         name);
  return strides;
}

Strides Check::tokens_first(const char* name, const pyrf_view& x, int dtype, const Shape& shape,
                            int64_t head_dim) {
  strided(name, x, dtype, shape);
  return ok() ? Strides{stride(x, 0), head_dim, stride(x, 1)} : Strides{};
}

}  // namespace pyrf

extern "C" const char* pyrf_last_error(void) { return pyrf::last_error; }
