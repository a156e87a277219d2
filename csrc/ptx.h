// Every instruction that C++ has no name for. Kernels call these wrappers and hold no asm of their own, so
// that the emulator, which compiles the same kernels with a host compiler, can put its own bodies here.
#pragma once

#include <cstdint>
#include <type_traits>

namespace pyrf {

// The element types of kernels: in memory 16 bits, and 8 of a cache alone.
struct Bf16 {};
struct Fp16 {};
struct E4m3 {};

}  // namespace pyrf

#ifdef PYRF_EMULATE
#include "emulator/ptx.h"
#else

#include <cuda_runtime.h>

#define PYRF_DEVICE __device__ __forceinline__

namespace pyrf::ptx {

// An address in shared memory.
using Shared = uint32_t;

PYRF_DEVICE void sync_threads() { __syncthreads(); }
PYRF_DEVICE void sync_warp() { __syncwarp(); }

PYRF_DEVICE float shuffle_xor(float x, int lanes) { return __shfl_xor_sync(0xffffffffu, x, lanes); }
PYRF_DEVICE uint32_t shuffle_xor(uint32_t x, int lanes) { return __shfl_xor_sync(0xffffffffu, x, lanes); }

PYRF_DEVICE uint32_t float_bits(float x) { return __float_as_uint(x); }
PYRF_DEVICE float bits_float(uint32_t x) { return __uint_as_float(x); }

PYRF_DEVICE float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

PYRF_DEVICE float rsqrt(float x) { return rsqrtf(x); }

PYRF_DEVICE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats rounded to nearest even, the first in the low half.
template <class T>
PYRF_DEVICE uint32_t pack(float low, float high) {
  uint32_t word;
  if constexpr (std::is_same_v<T, Bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  }
  return word;
}

template <class T>
PYRF_DEVICE float2 unpack(uint32_t word) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return make_float2(bits_float(word << 16), bits_float(word & 0xffff0000u));
  } else {
    float2 x;
    asm("{ .reg .b16 low, high;\n"
        "  mov.b32 {low, high}, %2;\n"
        "  cvt.f32.f16 %0, low;\n"
        "  cvt.f32.f16 %1, high; }"
        : "=f"(x.x), "=f"(x.y)
        : "r"(word));
    return x;
  }
}

}  // namespace pyrf::ptx

#include "e4m3.h"

namespace pyrf::ptx {

// Two floats rounded to nearest even e4m3, beyond 448 to 448; the first in the low of 16 bits.
PYRF_DEVICE uint32_t pack_e4m3(float low, float high) {
#if __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return narrow_e4m3(low) | narrow_e4m3(high) << 8;
#endif
}

// Global memory: 16 bytes, except 8 channels of e4m3, the scale of a row of them, the pair of floats of a
// small table and the slot.
PYRF_DEVICE uint4 load16(const void* from) { return *static_cast<const uint4*>(from); }
PYRF_DEVICE void store16(void* to, uint4 x) { *static_cast<uint4*>(to) = x; }
PYRF_DEVICE uint2 load8(const void* from) { return *static_cast<const uint2*>(from); }
PYRF_DEVICE void store8(void* to, uint2 x) { *static_cast<uint2*>(to) = x; }
PYRF_DEVICE void store_float(float* to, float x) { *to = x; }
PYRF_DEVICE float2 load_pair(const float* from) { return *reinterpret_cast<const float2*>(from); }
PYRF_DEVICE int64_t load_index(const int64_t* from) { return *from; }

// The start of the block's dynamic shared memory.
PYRF_DEVICE Shared shared_memory() {
  extern __shared__ __align__(1024) unsigned char pyrf_shared_memory[];
  return static_cast<Shared>(__cvta_generic_to_shared(pyrf_shared_memory));
}

PYRF_DEVICE void store_shared(Shared to, uint32_t x) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}

PYRF_DEVICE uint32_t load_shared(Shared from) {
  uint32_t x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
  return x;
}

PYRF_DEVICE uint4 load_shared16(Shared from) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(from)
               : "memory");
  return x;
}

PYRF_DEVICE void store_shared16(Shared to, uint4 x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}

// Copy 16 bytes from global to shared memory in the background, or zeros where `valid` is false.
PYRF_DEVICE void copy_async16(Shared to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}

PYRF_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most `kPending` of this thread's groups are under way.
template <int kPending>
PYRF_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
PYRF_DEVICE void load_matrices(uint32_t (&x)[4], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(row)
               : "memory");
}

PYRF_DEVICE void load_matrices_transposed(uint32_t (&x)[4], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(row)
               : "memory");
}

// Four bytes of eight, the low first: a digit of `picks` is 0 ... 3 of a, 4 ... 7 of b.
PYRF_DEVICE uint32_t permute(uint32_t a, uint32_t b, uint32_t picks) { return __byte_perm(a, b, picks); }

// c [16, 8] float32 += a [16, 16] b [16, 8]; of e4m3 a [16, 32] b [32, 8]
template <class T>
PYRF_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, Bf16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else if constexpr (std::is_same_v<T, E4m3>) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

}  // namespace pyrf::ptx

#endif
