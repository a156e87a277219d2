// Checks of a launcher's arguments: the first that fails is kept, with what was given and what was expected.
#pragma once

#include <cstdint>

#include "params.h"
#include "pyrf.h"

namespace pyrf {

inline constexpr int64_t kAlignment = 16;       // bytes of every access to global memory
inline constexpr int64_t kMaxTokens = 1 << 24;  // of a cache; keeps offsets inside a head in 32 bits
inline constexpr int64_t kMaxGrid = 65535;      // blocks in y and z

// Set the text of `pyrf_last_error`; returns the status.
int fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));

class Check {
 public:
  explicit Check(const char* op) : op_(op) {}

  bool ok() const { return status_ == PYRF_OK; }
  int status() const { return status_; }

  void that(bool holds, const char* format, ...) __attribute__((format(printf, 3, 4)));
  void dtype(int given);
  void head_dim(int64_t given);
  void range(const char* name, int64_t given, int64_t low, int64_t high);
  void pointer(const char* name, const void* given, int64_t alignment = kAlignment);
  // Null, or a pointer to what may be left out.
  void optional(const char* name, const void* given);
  // What the ops of the cache share: sizes that fit their grids, and a cache of whole slots.
  void sizes(int64_t batch, int64_t heads, int64_t capacity);
  void slots(int64_t capacity, int64_t tokens);

  // The strides of [batch, heads, tokens, head_dim] and, `tokens_first`, of [batch, tokens, heads *
  // head_dim].
  Strides heads_first(const char* name, const int64_t* given, int64_t batch, int64_t heads, int64_t tokens);
  // The same of a tensor that is written, where no two indices may mean one place.
  Strides written(const char* name, const int64_t* given, int64_t batch, int64_t heads, int64_t tokens);
  Strides tokens_first(const char* name, const int64_t* given, int64_t batch, int64_t tokens,
                       int64_t head_dim);

 private:
  int64_t stride(const char* name, const int64_t* given, int dimension, int64_t size);
  void last_stride(const char* name, const int64_t* given, int dimension);

  const char* op_;
  int status_ = PYRF_OK;
};

}  // namespace pyrf
