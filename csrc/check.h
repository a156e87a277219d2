// Checks of a launcher's arguments: the first that fails is kept, with what was given and what was expected.
#pragma once

#include <cstdint>
#include <vector>

#include "params.h"
#include "pyrf.h"

namespace pyrf {

inline constexpr int64_t kAlignment = 16;       // bytes of every access to global memory
inline constexpr int64_t kMaxTokens = 1 << 24;  // of a cache; keeps offsets inside a head in 32 bits
inline constexpr int64_t kMaxGrid = 65535;      // blocks in y and z

using Shape = std::vector<int64_t>;

// Of the scales of rows, one for each: the rows' shape with 1 in place of the last.
Shape scale_shape(Shape rows);

// Set the text of `pyrf_last_error`; returns the status.
int fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));

class Check {
 public:
  explicit Check(const char* op) : op_(op) {}

  bool ok() const { return status_ == PYRF_OK; }
  int status() const { return status_; }

  void that(bool holds, const char* format, ...) __attribute__((format(printf, 3, 4)));
  void range(const char* name, int64_t given, int64_t low, int64_t high);

  // There is a tensor of so many dimensions. To be asked, and answered, before its shape is read.
  void dimensions(const char* name, const pyrf_view& x, int count);
  // The dtype is one that the kernels compute in.
  void elements(int dtype);
  // What the ops of the cache share, [batch, heads, capacity, head_dim]: a dtype that the kernels compute in,
  // or e4m3, and sizes that fit their grids.
  void cache(const pyrf_view& keys);
  // How many rows [..., dim] are, of which a kernel's grid must hold all.
  int64_t rows(const Shape& shape);
  // Slots of so many tokens fill the cache.
  void slots(int64_t capacity, int64_t tokens);

  // The rest is asked of every tensor: dtype, shape, alignment, strides.
  void scalar(const char* name, const pyrf_view& x, int dtype);
  void contiguous(const char* name, const pyrf_view& x, int dtype, const Shape& shape);
  // The same of a tensor that may be left out.
  void optional(const char* name, const pyrf_view& x, int dtype, const Shape& shape);
  // Returns the strides of [batch, heads, tokens, head_dim].
  Strides heads_first(const char* name, const pyrf_view& x, int dtype, const Shape& shape);
  // The same of a tensor that is written, where no two indices may mean one place.
  Strides written(const char* name, const pyrf_view& x, int dtype, const Shape& shape);
  // Returns the strides of [batch, tokens, heads * head_dim].
  Strides tokens_first(const char* name, const pyrf_view& x, int dtype, const Shape& shape, int64_t head_dim);

 private:
  void tensor(const char* name, const pyrf_view& x, int dtype, const Shape& shape, int64_t alignment);
  void strided(const char* name, const pyrf_view& x, int dtype, const Shape& shape);

  const char* op_;
  int status_ = PYRF_OK;
};

}  // namespace pyrf
