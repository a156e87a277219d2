"""What ranks exchange within a network call (DeepSpeed-Ulysses, arXiv:2309.14509, section 3).

Before attention each rank has all channels of its own tokens, then all tokens of its own heads: one
all-to-all there, and one back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


class Exchange:
    """The collectives of a mesh of one dimension; every rank calls the same ones in the same order.

    Args:
        mesh: of the ranks that share a stream.

    Attributes:
        rank: this process's number.
        ranks: how many there are.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self._group, self.rank, self.ranks = mesh.get_group(), mesh.get_local_rank(), mesh.size()

    def broadcast(self, x: Tensor) -> Tensor:
        """Rank 0's tensor on all ranks; of the others' only shape and dtype count."""
        return collectives.wait_tensor(collectives.broadcast(x.contiguous(), 0, self._group))

    def gather(self, part: Tensor, lengths: Sequence[int], axis: int) -> Tensor:
        """Parts of these lengths along an axis, put together on rank 0; empty on the others."""
        none = [0] * self.ranks
        received = list(lengths) if self.rank == 0 else none
        sent = [part.shape[axis], *none[1:]]
        return self._all_to_all(part.movedim(axis, 0), sent, received).movedim(0, axis)

    def to_heads(self, parts: Sequence[Tensor], counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Own tokens to own heads, several tensors in one exchange.

        Args:
            parts: each [B, n, D], all channels of this rank's n tokens.
            counts: n of every rank.

        Returns:
            Each [B, N, D / ranks], all tokens, in the ranks' order.
        """
        stacked = torch.stack(tuple(parts), 2)
        batch, own = stacked.shape[:2]
        by_rank = stacked.unflatten(3, (self.ranks, -1)).permute(3, 0, 1, 2, 4)
        received = self._all_to_all(
            by_rank.flatten(0, 2), [batch * own] * self.ranks, [batch * count for count in counts]
        )
        if batch == 1:
            return received[None].unbind(2)
        each = received.split([batch * count for count in counts])
        return torch.cat([x.unflatten(0, (batch, -1)) for x in each], 1).unbind(2)

    def to_tokens(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """`to_heads` the other way: x [B, N, D / ranks] to [B, n, D]."""
        batch, own = x.shape[0], counts[self.rank]
        sent = torch.cat([part.flatten(0, 1) for part in x.split(list(counts), 1)])
        received = self._all_to_all(sent, [batch * count for count in counts], [batch * own] * self.ranks)
        return received.view(self.ranks, batch, own, -1).permute(1, 2, 0, 3).flatten(2)

    def _all_to_all(self, x: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Rows of x to and from every rank."""
        moved = collectives.all_to_all_single(x.contiguous(), received, sent, self._group)
        return collectives.wait_tensor(moved)
