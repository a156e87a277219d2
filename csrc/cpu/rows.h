// What the ops on rows share.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pyrf::cpu {

// The sum of term(i) over a row, in an order that leaves the compiler free to use vector registers.
template <class Term>
inline float sum_over(int64_t size, Term term) {
  constexpr int64_t kSums = 16;
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= size; i += kSums)
    for (int64_t j = 0; j < kSums; ++j) sums[j] += term(i + j);
  float total = 0.0f;
  for (; i < size; ++i) total += term(i);
  for (const float sum : sums) total += sum;
  return total;
}

// Threads that so many numbers are worth, about 10 us each.
inline int threads_for(int64_t numbers, int threads) {
  return static_cast<int>(std::clamp<int64_t>(numbers / 32768, 1, threads));
}

}  // namespace pyrf::cpu
