"""Several processes that train one model: a core or more each (gloo), or a GPU each (NCCL)."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException

from pyrf.training.runner import stopping


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def total(values: list[float]) -> list[float]:
    """The sum over the processes of each value; the same in all of them."""
    if world_size() == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64, device="cpu")
    dist.all_reduce(shared)
    return shared.tolist()


def gather(value: Any) -> list[Any]:
    """What each process gives, in the order of ranks; the same list in all of them."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


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


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def under_torchrun() -> bool:
    """Whether torchrun, or anything that sets its variables, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join() -> None:
    """Enter the group of processes: torchrun's, or without it a group of one, which sharding needs too."""
    if dist.is_initialized():
        return
    place = device()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    if under_torchrun():
        dist.init_process_group(backend)
        atexit.register(leave)  # the stages of a recipe share the group
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def leave() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launch(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function(*arguments)` in `count` processes that can reach each other; in this one when 1.

    Under torchrun the processes are there already, and `count` is not looked at.

    Raises:
        ValueError, OSError: as the first process that raises one; the others are ended.
        ProcessRaisedException: when one fails otherwise.
        KeyboardInterrupt: or another signal's exception, which ends the others too.
        SystemExit: with code 0, when SIGTERM has stopped them.
    """
    if under_torchrun():
        join()
        function(*arguments)
        return
    if count == 1:
        try:
            function(*arguments)
        finally:
            leave()
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        errors: SimpleQueue[Exception] = torch.multiprocessing.get_context("spawn").SimpleQueue()
        context = torch.multiprocessing.spawn(
            _worker, (count, meeting, errors, function, arguments), nprocs=count, join=False
        )

        def pass_on() -> None:
            for process in context.processes:
                if process.is_alive() and process.pid is not None:
                    os.kill(process.pid, signal.SIGTERM)

        with stopping.noted(pass_on) as stop:
            try:
                while not context.join():
                    pass
            except ProcessRaisedException as raised:
                if errors.empty():
                    raise
                raise errors.get() from raised
            except (KeyboardInterrupt, SystemExit):
                pass_on()  # they end as by SIGTERM, with a checkpoint
                for process in context.processes:
                    process.join()
                raise
    if stop.is_set():
        raise SystemExit(0)


def _worker(
    index: int,
    count: int,
    meeting: str,
    errors: SimpleQueue[Exception],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process passes it on
    level = logging.INFO if index == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    with stopping.noted():
        dist.init_process_group("gloo", init_method=meeting, rank=index, world_size=count)
        try:
            function(*arguments)
        except (ValueError, OSError) as error:  # what a user can mend
            errors.put(error)
            raise
        finally:
            leave()
