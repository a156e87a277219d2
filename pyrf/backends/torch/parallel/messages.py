"""What the process that has a stream and its ranks tell each other. Free of torch: a rank lives before it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

BEAT_S = 0.5
"""Seconds between two signs of life of a rank."""


class RankLostError(ChildProcessError):
    """A process that shares the work of a stream has ended or hangs, so the stream has ended."""


@dataclass(frozen=True)
class Plan:
    """What every rank has to know.

    Attributes:
        bundle: arguments of `pyrf.bundle.load_bundle`.
        adapter_base: see `pyrf.backends.choice.ADAPTER_BASES`.
        dtype: of network and cache, by name.
        device: "cpu", or the GPU of rank 0; the ranks after it have the next ones.
        ranks: how many there are.
        decoder_rank: which of them decodes; None: none.
        threads: of a rank on a CPU; None: as torch chooses.
        precision: see `pyrf.backends.choice.PRECISIONS`.
        patience_s: seconds without a sign of life after which a rank counts as hanging.
    """

    bundle: Mapping[str, Any]
    adapter_base: str
    dtype: str
    device: str
    ranks: int
    decoder_rank: int | None = None
    threads: int | None = None
    precision: str | None = None
    patience_s: float = 10.0


@dataclass(frozen=True)
class Order:
    """What all ranks do, in the same order; "decode" is for one of them.

    Attributes:
        ticket: by which the answer is known.
        verb: see `Member.carry_out`.
        stream: whose rollout or decoder it is for.
        args: further arguments.
        given: shape and dtype of a tensor that rank 0 has, and the others get from it.
        released: streams that are no longer there.
    """

    ticket: int
    verb: str
    stream: int = 0
    args: tuple[Any, ...] = ()
    given: tuple[tuple[int, ...], Any] | None = None
    released: tuple[int, ...] = ()


@dataclass(frozen=True)
class Alive:
    """A rank has been loaded (`is_ready`), or gives a sign of life. To a rank it is the question for one."""

    is_ready: bool = False


@dataclass(frozen=True)
class Answer:
    """An order is carried out, and this came of it."""

    ticket: int
    value: Any = None


@dataclass(frozen=True)
class Failed:
    """A rank cannot go on."""

    reason: str


class Channel:
    """Messages over a connection, which any thread may send."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self._lock = connection, threading.Lock()

    def send(self, message: object) -> None:
        """Send a message; it blocks while the other side reads nothing.

        Raises:
            OSError: when the other side is gone.
        """
        packed = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self.connection.send_bytes(packed)

    def receive(self) -> Any:
        """Wait for a message.

        Raises:
            EOFError, OSError: when the other side is gone.
        """
        return pickle.loads(self.connection.recv_bytes())

    def close(self) -> None:
        self.connection.close()
