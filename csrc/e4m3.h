// float8 e4m3 (1 sign, 4 exponent, 3 fraction bits; no infinity) by integers: for GPUs older than sm_89,
// which have no instruction for it, and for the emulator. ptx.h includes it where floats have bits.
#pragma once

namespace pyrf::ptx {

// A float rounded to nearest even; what lies beyond 448 becomes 448, and NaN stays.
PYRF_DEVICE uint32_t narrow_e4m3(float x) {
  constexpr uint32_t kInfinity = 0x7f800000, kLargest = 0x43e00000, kLeastNormal = 0x3c800000;
  constexpr uint32_t kLargestByte = 0x7e, kNaN = 0x7f;
  const uint32_t size = float_bits(x) & 0x7fffffff, sign = float_bits(x) >> 24 & 0x80;
  if (size > kInfinity) return kNaN;
  if (size >= kLargest) return sign | kLargestByte;
  if (size < kLeastNormal) {  // beside 2^14 a float's last bit is 2^-9, as that of the small numbers
    constexpr float kRounder = 16384.0f;
    return sign | (float_bits(bits_float(size) + kRounder) - float_bits(kRounder));
  }
  constexpr uint32_t kBias = (127 - 7) << 3;
  return sign | (((size + 0x7ffff + (size >> 20 & 1)) >> 20) - kBias);
}

PYRF_DEVICE float widen_e4m3(uint32_t byte) {
  constexpr float kBias = 0x1p120f;
  constexpr uint32_t kNaN = 0x7f;
  const uint32_t size = byte & 0x7f, sign = (byte & 0x80) << 24;
  if (size == kNaN) return bits_float(0x7fffffff);
  return bits_float(float_bits(bits_float(size << 20) * kBias) | sign);
}

}  // namespace pyrf::ptx
