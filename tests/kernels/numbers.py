"""Numbers of 16 and 8 bits in numpy, and aligned arrays of them."""

from __future__ import annotations

import numpy as np

POISON = 0xFFFF  # NaN as bfloat16 and as float16
ULP = {"bf16": 2.0**-7, "fp16": 2.0**-10, "e4m3": 2.0**-3}
"""Distance of neighbouring numbers, relative to the lower end of their binade."""
LEAST = {"bf16": 2.0**-10, "fp16": 2.0**-10, "e4m3": 2.0**-6}
"""The binade below which the distance is taken as the same."""
E4M3 = np.array(
    [(m / 8 if e == 0 else 1 + m / 8) * 2.0 ** (max(e, 1) - 7) for e, m in np.ndindex(16, 8)][:127]
)
"""What the bytes 0 ... 126 mean."""


def to_e4m3(x: np.ndarray) -> np.ndarray:
    """The bits of the nearest e4m3, ties to even, 448 at most, as uint8."""
    middles = (E4M3[1:] + E4M3[:-1]) / 2
    low, high = (np.searchsorted(middles, np.abs(x), side) for side in ("left", "right"))
    return np.where(np.signbit(x), 0x80, 0).astype(np.uint8) | (low + low % 2 * (high - low)).astype(np.uint8)


def to_bits(x: np.ndarray, dtype: str) -> np.ndarray:
    """Round to a 16-bit float or to e4m3, ties to even; the bits as uint16 or uint8."""
    if dtype == "e4m3":
        return to_e4m3(x)
    if dtype == "fp16":
        return x.astype(np.float16).view(np.uint16)
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bits(bits: np.ndarray, dtype: str) -> np.ndarray:
    """The float64 value of the bits of a 16-bit float or of e4m3."""
    if dtype == "e4m3":
        return np.where(bits & 0x80, -1, 1) * np.append(E4M3, np.nan)[bits & 0x7F]
    if dtype == "fp16":
        return bits.view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def aligned(shape: tuple[int, ...], dtype: type, fill: int | float = 0) -> np.ndarray:
    """A new array at an address with 16-byte alignment, with no byte to spare behind it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 16, np.uint8)
    start = -memory.ctypes.data % 16
    out: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    out[...] = fill
    return out


def place(x: np.ndarray) -> np.ndarray:
    """An aligned copy."""
    out = aligned(x.shape, x.dtype.type)
    out[...] = x
    return out


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random normal numbers as aligned bits."""
    return place(to_bits(rng.standard_normal(shape), dtype))


def join_bits(slot: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The float32 of a bfloat16 slot and its residual."""
    low = residual.view(np.uint16).astype(np.uint32)
    return (((slot.astype(np.uint32) - (low >> 15)) << 16) | low).view(np.float32)


def every_tie() -> np.ndarray:
    """e4m3's numbers, what lies halfway between two, the float32 beside each of these, and what is too large.

    There is no zero among them.
    """
    halfway = np.concatenate((E4M3, (E4M3[1:] + E4M3[:-1]) / 2)).astype(np.float32)
    beside = [np.nextafter(halfway, np.float32(end)) for end in (-np.inf, np.inf)]
    others = np.array([464, 480, 1e9, 3e38, 2.0**-149], np.float32)
    sizes = np.concatenate((halfway[halfway > 0], *beside, others))
    return np.concatenate((sizes[sizes != 0], -sizes[sizes != 0]))
