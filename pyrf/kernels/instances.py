"""What the CUDA kernels are compiled for: element types and sizes; and the block of each."""

from __future__ import annotations

import re
from dataclasses import dataclass

SIZES = {
    "add_norm": (128, 256, 512, 1536, 5120),
    "ema_sink_update": (64, 128),
    "norm_rope_append": (64, 128),
    "quantise_rows": (2048, 6144, 10240, 14336),
    "ring_attention": (64, 128),
    "ring_attention_e4m3": (64, 128),
}
"""What each kernel is compiled for: a head_dim, or of those in `ROWS` the widest row."""
ROWS = ("add_norm", "quantise_rows")
KERNELS = tuple(SIZES)
ELEMENTS = {"Bf16": "bfloat16", "Fp16": "float16"}
E4M3 = "float8_e4m3fn"
"""What a kernel may write instead; none computes in it."""
RING_QUERIES = 128
"""Queries that a block of ring_attention serves."""

_NAME = re.compile(r"_ZN4pyrf\d+([a-z]\w*?)_kernelINS_4(\w+?)ELi(\d+)E(?:NS_4(\w+?)E)?")
_NAMES = {**ELEMENTS, "E4m3": E4M3}


@dataclass(frozen=True)
class Instance:
    """A kernel as compiled for one element type and one of its `SIZES`; and what it writes, if another."""

    kernel: str
    dtype: str
    size: int
    written: str | None = None

    @classmethod
    def of(cls, entry: str) -> Instance:
        """From the mangled name of an entry.

        Raises:
            ValueError: when it is no kernel of ours.
        """
        match = _NAME.search(entry)
        if not match or match[2] not in _NAMES or not (match[4] is None or match[4] in _NAMES):
            raise ValueError(f"{entry} is not the name of a kernel<element, size>")
        return cls(match[1], _NAMES[match[2]], int(match[3]), _NAMES[match[4]] if match[4] else None)

    @classmethod
    def serving(cls, kernel: str, dtype: str, heads: int, head_dim: int) -> Instance | None:
        """The one that the launcher chooses for a model; None where there is none."""
        if kernel in ROWS:
            size = min((width for width in SIZES[kernel] if width >= heads * head_dim), default=None)
        else:
            size = head_dim if head_dim in SIZES.get(kernel, ()) else None
        return cls(kernel, dtype, size) if size is not None and dtype in ELEMENTS.values() else None

    def block(self, heads: int) -> tuple[int, int]:
        """Threads and bytes of dynamic shared memory of a block, as the launchers in csrc choose them."""
        if self.kernel == "add_norm":
            return 128, 0
        if self.kernel == "quantise_rows":
            return 256, 4 * 8  # the largest number of each warp
        if self.kernel == "ema_sink_update":
            return 256, 0
        if self.kernel == "norm_rope_append":
            warps = -(-heads * self.size // 8 // 32)
            return 32 * warps, 2 * 4 * 20  # two float32 sums for each of at most 20 warps
        element = 1 if self.kernel == "ring_attention_e4m3" else 2
        keys = 64 if self.size == 64 else 16 * (1 + element)
        return 128, element * self.size * (RING_QUERIES + 4 * keys)  # two buffers of keys and of values
