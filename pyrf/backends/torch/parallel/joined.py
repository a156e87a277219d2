"""Ranks that torchrun started: rank 0 has the stream and gives the others their orders."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Client, Listener
from typing import Any

import torch.distributed as dist
from torch import Tensor

from pyrf.backends.torch.parallel.member import Member, device_of, join
from pyrf.backends.torch.parallel.messages import Alive, Answer, Channel, Failed, Plan
from pyrf.backends.torch.parallel.ranks import Ranks
from pyrf.backends.torch.parallel.worker import obey

CAUSE_S = 1.0
"""Seconds in which a rank may answer, once a collective has failed."""
ENDED, HANGS = "ended", "hangs: it gives no sign of life"


class JoinedRanks(Ranks):
    """This process as rank 0, and the others that torchrun started.

    Args:
        plan: the ranks' own.

    Raises:
        RankLostError: when another rank cannot be loaded.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, device_of(plan.device, 0))
        join(plan, 0, None)
        with Listener(family="AF_UNIX") as listener:
            dist.broadcast_object_list([listener.address], src=0, device=self.device)
            arrived = [Channel(listener.accept()) for _ in range(plan.ranks - 1)]
        self._channels = dict(sorted((channel.receive(), channel) for channel in arrived))
        self._member = Member(plan, 0)
        self._hearing = threading.Lock()
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="pyrf-decoder")
        for rank, channel in self._channels.items():
            message = channel.receive()
            if not isinstance(message, Alive):
                self._why = f"rank {rank} failed: {message.reason}"
                raise self.error()

    def carry_out(self, verb: str, stream: int = 0, *args: Any, x: Tensor | None = None) -> Tensor | None:
        with self._lock:
            if self.is_lost:
                raise self.error()
            order = self._order(verb, stream, args, x)
            try:
                for channel in self._channels.values():
                    channel.send((order, None))
                return self._member.carry_out(order, x)
            except (RuntimeError, OSError) as error:  # of a collective, or a channel
                self._why = self._cause() or f"rank 0 failed: {type(error).__name__}: {error}"
                raise self.error() from error

    def _cause(self) -> str | None:
        """The rank that keeps the others from going on; those that waited for it say that they failed."""
        found = {rank: self._state(rank) for rank in self._channels}
        lost = [f"rank {rank} {state}" for rank, state in found.items() if state in (ENDED, HANGS)]
        failed = [f"rank {rank} {state}" for rank, state in found.items() if state is not None]
        return next(iter([*lost, *failed]), None)

    def _state(self, rank: int) -> str | None:
        """What is wrong with a rank, if anything: one that lives answers, also amid a network call."""
        channel, until = self._channels[rank], time.monotonic() + CAUSE_S
        if not self._hearing.acquire(timeout=CAUSE_S):  # it owes a decoded chunk
            return HANGS
        try:
            channel.send(Alive())
            while channel.connection.poll(max(0.0, until - time.monotonic())):
                message = channel.receive()
                if isinstance(message, Failed):
                    return f"failed: {message.reason}"
                if isinstance(message, Alive):
                    return None
        except (EOFError, OSError):
            return ENDED
        finally:
            self._hearing.release()
        return HANGS

    def decode(self, stream: int, latents: Tensor) -> Future[Tensor]:
        if self.plan.decoder_rank == 0:
            return self._decoding.submit(self._member.decode, stream, latents)
        return self._decoding.submit(self._decoded, stream, latents.cpu())

    def _decoded(self, stream: int, latents: Tensor) -> Tensor:
        assert self.plan.decoder_rank is not None
        channel = self._channels[self.plan.decoder_rank]
        try:
            channel.send((self._order("decode", stream, (), latents), latents))
            with self._hearing:
                message = channel.receive()
            if isinstance(message, Answer):
                return message.value
            self._why = f"rank {self.plan.decoder_rank} failed: {message.reason}"
        except (EOFError, OSError):
            self._why = f"rank {self.plan.decoder_rank} ended"
        raise self.error()

    def close(self) -> None:
        self._decoding.shutdown()
        for channel in self._channels.values():
            channel.close()
        dist.destroy_process_group()


def follow(plan: Plan, rank: int) -> int:
    """Be another rank than 0 until rank 0 ends; return an exit code."""
    join(plan, rank, None)
    address: list[Any] = [None]
    dist.broadcast_object_list(address, src=0, device=device_of(plan.device, rank))
    channel = Channel(Client(address[0]))
    channel.send(rank)
    code = obey(channel, lambda: Member(plan, rank))
    if code == 0:
        dist.destroy_process_group()
    return code
