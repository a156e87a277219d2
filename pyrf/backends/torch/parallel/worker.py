"""A rank as a process: `python -m pyrf.backends.torch.parallel.worker FD`, started by `SpawnedRanks`.

It lives as long as the process that started it, whose end closes the connection.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from pyrf.backends.torch.parallel.messages import BEAT_S, Alive, Answer, Channel, Failed, Order, Plan

if TYPE_CHECKING:
    from pyrf.backends.torch.parallel.member import Member

GRACE_S = 2.0
"""Seconds that a rank has to end by itself, once nobody gives it orders; it may wait for another rank."""


def obey(channel: Channel, load: Callable[[], Member]) -> int:
    """Carry out orders until the other side of the channel is gone; return an exit code."""
    orders: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(channel, orders), name="pyrf-orders", daemon=True).start()
    try:
        member = load()
        decoding = ThreadPoolExecutor(1, thread_name_prefix="pyrf-decoder")
        channel.send(Alive(is_ready=True))
        while (message := orders.get()) is not None:
            order, given = message
            if order.verb == "decode":
                decoding.submit(_decode, channel, member, order, given)
                continue
            value = member.carry_out(order, given)
            if member.rank == 0:
                channel.send(Answer(order.ticket, value if value is None else value.cpu()))
    except BaseException as error:
        with suppress(OSError):
            channel.send(Failed(f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _read(channel: Channel, orders: SimpleQueue[Any]) -> None:
    with suppress(EOFError, OSError):
        while True:
            message = channel.receive()
            if isinstance(message, Alive):  # a question
                channel.send(message)
            else:
                orders.put(message)
    orders.put(None)
    time.sleep(GRACE_S)
    os._exit(0)


def _decode(channel: Channel, member: Member, order: Order, latents: Any) -> None:
    try:
        channel.send(Answer(order.ticket, member.decode(order.stream, latents)))
    except BaseException as error:
        with suppress(OSError):
            channel.send(Failed(f"the decoder: {type(error).__name__}: {error}"))


def _beat(channel: Channel) -> None:
    """Give signs of life for as long as somebody may hear them."""
    with suppress(OSError):
        while True:
            channel.send(Alive())
            time.sleep(BEAT_S)


def main(descriptor: int) -> int:
    """Be the rank that the process at the other end asks for."""
    channel = Channel(Connection(descriptor))
    rank, plan, store = channel.receive()
    threading.Thread(target=_beat, args=(channel,), name="pyrf-beat", daemon=True).start()
    return obey(channel, lambda: _loaded(rank, plan, store))


def _loaded(rank: int, plan: Plan, store: str) -> Member:
    """The rank itself; torch is imported here, while it gives signs of life already."""
    import torch.distributed as dist

    from pyrf.backends.torch.parallel.member import Member, join

    join(plan, rank, dist.FileStore(store, plan.ranks))
    return Member(plan, rank)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # a rank that waits for a lost one would not end
