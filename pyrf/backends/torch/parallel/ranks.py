"""The ranks of a stream, as the process that has the stream sees them."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from pyrf.backends.torch.parallel.messages import Order, Plan, RankLostError


class Ranks(ABC):
    """Processes that carry orders out together.

    Streams of several threads may give orders; each is carried out whole before the next.

    Args:
        plan: their own.
        device: where the tensors that come with orders, and come of them, are.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self._lock = threading.Lock()
        self._tickets, self._streams = itertools.count(1), itertools.count(1)
        self._released: deque[int] = deque()
        self._why: str | None = None
        self._owner = os.getpid()

    def new_stream(self, owner: object) -> int:
        """A number for a stream, which the ranks forget at the order after its owner has gone."""
        stream = next(self._streams)
        weakref.finalize(owner, self._released.append, stream).atexit = False
        return stream

    @property
    def is_lost(self) -> bool:
        """Whether a rank has ended or hangs, so that no order is carried out any more."""
        return self._why is not None

    def error(self) -> RankLostError:
        """Why no order is carried out any more."""
        return RankLostError(f"{self._why}; the stream on these {self.plan.ranks} ranks has ended")

    @abstractmethod
    def carry_out(self, verb: str, stream: int = 0, *args: Any, x: Tensor | None = None) -> Tensor | None:
        """Have all ranks carry out an order (`pyrf.backends.torch.parallel.member.Member`); its result.

        Raises:
            RankLostError: when a rank has ended or hangs.
        """

    @abstractmethod
    def decode(self, stream: int, latents: Tensor) -> Future[Tensor]:
        """Have the decoder's rank decode the next latents of a stream, while other orders are carried out.

        Raises:
            RankLostError: when a rank has ended or hangs; from the future, too.
        """

    @abstractmethod
    def close(self) -> None:
        """Let the ranks end."""

    def _order(self, verb: str, stream: int, args: tuple[Any, ...], x: Tensor | None) -> Order:
        if os.getpid() != self._owner:
            raise RuntimeError("the ranks are those of the process that was forked; load the model anew here")
        released = tuple(self._released.popleft() for _ in range(len(self._released)))
        given = None if x is None else (tuple(x.shape), x.dtype)
        return Order(next(self._tickets), verb, stream, args, given, released)


class RanksOfStreams:
    """The ranks that new streams get: others are started where a rank was lost.

    Args:
        start: starts ranks.
        prepare: called with ranks that have just been started.
    """

    def __init__(self, start: Callable[[], Ranks], prepare: Callable[[Ranks], None]) -> None:
        self._start, self._prepare = start, prepare
        self._lock = threading.Lock()
        self._ranks = start()

    def get(self) -> Ranks:
        """Ranks that are there, as far as is known.

        Raises:
            RankLostError: when others cannot be started.
        """
        with self._lock:
            if self._ranks.is_lost:
                self._ranks = self._start()
                self._prepare(self._ranks)
            return self._ranks

    def close(self) -> None:
        """Let the ranks end."""
        self._ranks.close()
