"""Global and shared memory: bounds and alignment are checked, what was never written is NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.kernels.ptx.syntax import BITS, PtxError

GAP = 256
"""Bytes that nobody may touch, between two arrays in global memory. Also the alignment of arrays."""

SHARED_WINDOW = 1 << 40
"""Where shared memory stands among generic addresses."""

POISON = 0xFF
"""Of all bytes that hold no value yet; a NaN in every floating-point format."""

Array = np.ndarray[Any, Any]


def _gather(data: Array, offsets: Array, width: int) -> Array:
    """Bytes at aligned offsets, [lanes, width] uint8."""
    unit = min(width, 8)
    words = data[: len(data) // width * width].view(BITS[unit]).reshape(-1, width // unit)
    return words[offsets // width].view(np.uint8)


def _scatter(data: Array, offsets: Array, values: Array) -> None:
    """Store values [lanes, width] uint8; of lanes that write to one place, the last wins."""
    width = values.shape[1]
    unit = min(width, 8)
    words = data[: len(data) // width * width].view(BITS[unit]).reshape(-1, width // unit)
    words[offsets // width] = np.ascontiguousarray(values).view(BITS[unit])


def _check_aligned(what: str, addresses: Array, width: int) -> None:
    if np.any(addresses % width):
        bad = int(addresses[addresses % width != 0][0])
        raise PtxError(f"misaligned {what} access of {width} bytes at {bad:#x}")


class GlobalMemory:
    """Arrays of the host, copied to addresses of their own."""

    def __init__(self) -> None:
        self._data = np.empty(0, np.uint8)
        self._starts = np.empty(0, np.int64)
        self._ends = np.empty(0, np.int64)
        self._placed: dict[int, tuple[tuple[int, ...], np.dtype[Any]]] = {}

    def place(self, array: Array) -> int:
        """Copy an array in; returns its address."""
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        start = -(-len(self._data) // GAP) * GAP + GAP
        grown = np.full(start + len(raw) + GAP, POISON, np.uint8)
        grown[: len(self._data)] = self._data
        grown[start : start + len(raw)] = raw
        self._data = grown
        self._starts = np.append(self._starts, start)
        self._ends = np.append(self._ends, start + len(raw))
        self._placed[start] = (array.shape, array.dtype)
        return start

    def fetch(self, address: int) -> Array:
        """A copy of the array that was placed at an address."""
        shape, dtype = self._placed[address]
        size = int(np.prod(shape)) * dtype.itemsize
        return self._data[address : address + size].copy().view(dtype).reshape(shape)

    def _check(self, addresses: Array, width: int) -> None:
        _check_aligned("global", addresses, width)
        index = np.searchsorted(self._starts, addresses, "right") - 1
        outside = (index < 0) | (addresses + width > self._ends[index])
        if outside.any():
            bad = int(addresses[outside][0])
            raise PtxError(f"global access of {width} bytes at {bad:#x} lies outside every array")

    def load(self, addresses: Array, width: int) -> Array:
        """[lanes, width] bytes."""
        self._check(addresses, width)
        return _gather(self._data, addresses, width)

    def store(self, addresses: Array, values: Array) -> None:
        """Store [lanes, width] bytes."""
        self._check(addresses, values.shape[1])
        _scatter(self._data, addresses, values)


class SharedMemory:
    """The shared memory of a batch of blocks; addresses are those within a block.

    Args:
        blocks: how many.
        size: bytes of a block's.
    """

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self._stride = -(-size // GAP) * GAP
        self._data = np.full(blocks * self._stride, POISON, np.uint8)

    def _offsets(self, blocks: Array, addresses: Array, width: int) -> Array:
        _check_aligned("shared", addresses, width)
        outside = (addresses < 0) | (addresses + width > self.size)
        if outside.any():
            bad = int(addresses[outside][0])
            raise PtxError(f"shared access of {width} bytes at {bad} lies outside the block's {self.size}")
        return blocks * self._stride + addresses

    def load(self, blocks: Array, addresses: Array, width: int) -> Array:
        """[lanes, width] bytes of each lane's block."""
        return _gather(self._data, self._offsets(blocks, addresses, width), width)

    def store(self, blocks: Array, addresses: Array, values: Array) -> None:
        """Store [lanes, width] bytes."""
        _scatter(self._data, self._offsets(blocks, addresses, values.shape[1]), values)
