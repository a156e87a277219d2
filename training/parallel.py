"""Several processes that train one model on one machine, a core or more each (gloo)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def from_first(value: float) -> float:
    """The first process's value, for decisions that all must make alike, such as those by the clock."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(shared, src=0)
    return shared.item()


@contextmanager
def all_threads() -> Iterator[None]:
    """Compute with the threads of all processes, while the others wait at a barrier."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads * world_size())
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the processes; all must have the same ones."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(mean.view_as(gradient))


def share_work(function: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
    """`function` of a batch whose items do not depend on each other: each process computes a part."""
    if world_size() == 1:
        return function(items)
    results = torch.zeros_like(items)
    mine = slice(rank(), None, world_size())
    if len(items) > rank():
        results[mine] = function(items[mine])
    dist.all_reduce(results)
    return results


def launch(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function(*arguments)` in `count` processes that can reach each other; in this one when 1.

    Raises:
        ProcessRaisedException: when one of them fails; the others are ended.
    """
    if count == 1:
        function(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        torch.multiprocessing.spawn(_worker, (count, meeting, function, arguments), nprocs=count)


def _worker(
    index: int, count: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    level = logging.INFO if index == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    dist.init_process_group("gloo", init_method=meeting, rank=index, world_size=count)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
