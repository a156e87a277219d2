"""How a stream is cut for several ranks: each has a band of every latent frame, and some of the heads.

The network knows of no positions, so a band is to it what a smaller frame is. Free of torch but for types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrf.config import LatentSize

if TYPE_CHECKING:
    from torch import Tensor

MAX_RANKS = 16
"""Of a stream; more than the heads of a small model, and than the GPUs of a machine."""


def check_ranks(num_heads: int, ranks: int) -> None:
    """Refuse a number of ranks that the heads cannot be shared out to.

    Raises:
        ValueError: which numbers would do.
    """
    good = [n for n in range(1, min(num_heads, MAX_RANKS) + 1) if num_heads % n == 0]
    if ranks not in good:
        raise ValueError(
            f"the model's {num_heads} heads cannot be shared out evenly to {ranks} ranks; "
            f"take {', '.join(map(str, good))}"
        )


@dataclass(frozen=True)
class Bands:
    """Bands of a frame, one for each rank.

    Attributes:
        axis: of latents [..., H, W] that is cut, -2 or -1.
        bounds: where bands begin and end along it, in tokens.
    """

    axis: int
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, size: LatentSize, ranks: int) -> Bands:
        """Along the side that gives the most even bands, rows if both do.

        Raises:
            ValueError: when a rank would have no token.
        """
        sides = {-2: size.rows, -1: size.columns}
        if max(sides.values()) < ranks:
            raise ValueError(
                f"a frame of {size.rows} x {size.columns} tokens cannot be cut into {ranks} bands; "
                "take larger frames or fewer ranks"
            )
        axis = min(sides, key=lambda axis: _longest(sides[axis], ranks) / sides[axis])
        return cls(axis, tuple(sides[axis] * rank // ranks for rank in range(ranks + 1)))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the bands along the axis, in tokens."""
        return tuple(stop - start for start, stop in zip(self.bounds, self.bounds[1:]))

    @property
    def largest_share(self) -> float:
        """Of all tokens, what the rank with the most of them has."""
        return max(self.lengths) / self.bounds[-1]

    def part(self, x: Tensor, rank: int, cells: int = 1) -> Tensor:
        """A rank's band of x [..., H, W], with so many of its cells per token along the axis."""
        return x.narrow(self.axis, self.bounds[rank] * cells, self.lengths[rank] * cells)


def _longest(side: int, ranks: int) -> int:
    """Of the bands, when a side may be cut at all."""
    return -(-side // ranks) if side >= ranks else side * ranks
