#include "check.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>

namespace pyrf {
namespace {

thread_local char last_error[512];

}  // namespace

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

void Check::dtype(int given) {
  that(given == PYRF_BF16 || given == PYRF_FP16, "dtype must be %d (bfloat16) or %d (float16), got %d",
       PYRF_BF16, PYRF_FP16, given);
}

void Check::head_dim(int64_t given) {
  that(given == 64 || given == 128, "head_dim must be 64 or 128, got %" PRId64, given);
}

void Check::range(const char* name, int64_t given, int64_t low, int64_t high) {
  that(given >= low && given <= high, "%s must lie in %" PRId64 "..%" PRId64 ", got %" PRId64, name, low,
       high, given);
}

void Check::pointer(const char* name, const void* given, int64_t alignment) {
  that(given != nullptr, "%s must be a device pointer, got null", name);
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(given) % alignment);
  that(past == 0, "%s must be aligned to %" PRId64 " bytes, got an address %" PRId64 " bytes past", name,
       alignment, past);
}

void Check::optional(const char* name, const void* given) {
  if (given != nullptr) pointer(name, given);
}

void Check::sizes(int64_t batch, int64_t heads, int64_t capacity) {
  range("batch", batch, 1, kMaxGrid);
  range("heads", heads, 1, kMaxGrid);
  range("capacity", capacity, 1, kMaxTokens);
}

void Check::slots(int64_t capacity, int64_t tokens) {
  range("tokens", tokens, 1, kMaxTokens);
  that(tokens > 0 && capacity % tokens == 0,
       "capacity must be a multiple of a slot's %" PRId64 " tokens, got %" PRId64, tokens, capacity);
}

int64_t Check::stride(const char* name, const int64_t* given, int dimension, int64_t size) {
  if (size == 1 || !ok()) return 0;  // frameworks put anything there
  that(given[dimension] >= 0 && given[dimension] % 8 == 0,
       "%s must have strides of whole 16 bytes (multiples of 8 elements), got %" PRId64 " in dimension %d",
       name, given[dimension], dimension);
  return given[dimension];
}

void Check::last_stride(const char* name, const int64_t* given, int dimension) {
  that(given != nullptr, "%s must come with its strides, got null", name);
  if (!ok()) return;
  that(given[dimension] == 1, "%s must be contiguous in its last dimension (stride 1), got stride %" PRId64,
       name, given[dimension]);
}

Strides Check::heads_first(const char* name, const int64_t* given, int64_t batch, int64_t heads,
                           int64_t tokens) {
  last_stride(name, given, 3);
  return {stride(name, given, 0, batch), stride(name, given, 1, heads), stride(name, given, 2, tokens)};
}

Strides Check::written(const char* name, const int64_t* given, int64_t batch, int64_t heads, int64_t tokens) {
  const Strides strides = heads_first(name, given, batch, heads, tokens);
  const bool expanded = (batch > 1 && strides.batch == 0) || (heads > 1 && strides.head == 0) ||
                        (tokens > 1 && strides.token == 0);
  that(!expanded, "%s is written and must not be expanded, got a stride of 0", name);
  return strides;
}

Strides Check::tokens_first(const char* name, const int64_t* given, int64_t batch, int64_t tokens,
                            int64_t head_dim) {
  last_stride(name, given, 2);
  return {stride(name, given, 0, batch), head_dim, stride(name, given, 1, tokens)};
}

}  // namespace pyrf

extern "C" const char* pyrf_last_error(void) { return pyrf::last_error; }
