"""Ranks that the process with the stream starts, watches and ends; it is none of them itself.

So any of them may be killed at any moment, and nothing of it stays but the stream's end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor

from pyrf.backends.torch.parallel.messages import BEAT_S, Answer, Channel, Failed, Plan
from pyrf.backends.torch.parallel.ranks import Ranks

LOAD_S = 600.0
"""Seconds that ranks may take to load a model."""
CAUSE_S = 0.5
"""Seconds in which the rank is looked for whose end made another one fail."""
END_S = 3.0
"""Seconds that ranks have to end by themselves."""
STDERR = 2
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""Where ranks listen for each other, without asking who comes; by default on the machine's own address."""

_MODULE = "pyrf.backends.torch.parallel.worker"


class SpawnedRanks(Ranks):
    """A process for each rank, on this machine.

    Args:
        plan: the ranks' own.

    Raises:
        RankLostError: when they cannot be started.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, torch.device("cpu"))
        self._folder = tempfile.TemporaryDirectory(prefix="pyrf-ranks-")
        self._sockets: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[Channel] = []
        self._closing = threading.Event()
        self._waiting: dict[int, Future[Any]] = {}
        self._waiting_lock = threading.Lock()
        self._loading: Future[None] = Future()
        # What a rank said, None: no more will come.
        self._said: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        for rank in range(plan.ranks):
            self._start(rank)
        # One for each: a rank that is stopped amid a message must not keep the others from being heard.
        self._readers = [self._thread(self._read, rank) for rank in range(plan.ranks)]
        self._watcher = self._thread(self._watch)
        self._loading.result()

    @property
    def pids(self) -> list[int]:
        """The ranks' process ids."""
        return [process.pid for process in self._processes]

    def _start(self, rank: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=STDERR,  # ours may hold a video
                env=LOOPBACK | os.environ,
                start_new_session=True,  # Ctrl-C is for whoever has the stream
            )
        self._processes.append(process)
        self._sockets.append(ours)
        self._channels.append(Channel(Connection(os.dup(ours.fileno()))))
        with suppress(OSError):  # the watcher will say how it ended
            self._channels[-1].send((rank, self.plan, str(Path(self._folder.name) / "store")))

    def _thread(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name="pyrf-ranks", daemon=True)
        thread.start()
        return thread

    def carry_out(self, verb: str, stream: int = 0, *args: Any, x: Tensor | None = None) -> Tensor | None:
        with self._lock:
            return self._begin(verb, stream, args, x, self._channels).result()

    def decode(self, stream: int, latents: Tensor) -> Future[Tensor]:
        assert self.plan.decoder_rank is not None
        return self._begin("decode", stream, (), latents, [self._channels[self.plan.decoder_rank]])

    def _begin(
        self, verb: str, stream: int, args: tuple[Any, ...], x: Tensor | None, to: Sequence[Channel]
    ) -> Future[Any]:
        """Give an order, with the tensor for the first of those it goes to."""
        order, answer = self._order(verb, stream, args, x), Future[Any]()
        with self._waiting_lock:
            if self.is_lost:
                raise self.error()
            self._waiting[order.ticket] = answer
        given = None if x is None else x.cpu()
        with suppress(OSError):  # the watcher finds out why
            for channel in to:
                channel.send((order, given if channel is to[0] else None))
        return answer

    def _read(self, rank: int) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._said.put((rank, self._channels[rank].receive()))
        self._said.put((rank, None))

    def _watch(self) -> None:
        """Hear the ranks until one is lost or they are closed; then end all of them."""
        began = time.monotonic()
        heard, loading = dict.fromkeys(range(self.plan.ranks), began), set(range(self.plan.ranks))
        problem = None
        while problem is None and not self._closing.is_set():
            with suppress(Empty):
                rank, message = self._said.get(timeout=BEAT_S)
                heard[rank] = time.monotonic()
                problem = self._hear(rank, message, loading)
                continue
            problem = self._overdue(heard, began, loading)
        if problem is not None:
            problem = self._cause() or problem
            for process in self._processes:
                process.kill()  # ends one that is stopped, too
        self._end(problem or "the ranks were closed")

    def _hear(self, rank: int, message: Any, loading: set[int]) -> str | None:
        """Act on what a rank said; returns what is wrong, if anything."""
        if message is None:
            return self._how_ended(rank)
        if isinstance(message, Failed):
            return f"rank {rank} failed: {message.reason}"
        if isinstance(message, Answer):
            with self._waiting_lock:
                answer = self._waiting.pop(message.ticket)
            answer.set_result(message.value)
        elif message.is_ready:
            loading.discard(rank)
            if not loading:
                self._loading.set_result(None)
        return None

    def _overdue(self, heard: dict[int, float], began: float, loading: set[int]) -> str | None:
        """What has taken too long, if anything, now that nothing that was said is left to hear."""
        now, patience = time.monotonic(), self.plan.patience_s
        if loading:  # a rank that imports libraries may be silent for long
            return None if now - began < LOAD_S else f"the ranks were not loaded within {LOAD_S:g} s"
        for rank, at in heard.items():
            if now - at > patience:
                return f"rank {rank} hangs: it has given no sign of life for {patience:g} s"
        return None

    def _how_ended(self, rank: int) -> str:
        process = self._processes[rank]
        with suppress(subprocess.TimeoutExpired):
            process.wait(CAUSE_S)
        code = process.poll()
        if code is not None and code < 0:
            return f"rank {rank} was ended by {signal.Signals(-code).name}"
        return f"rank {rank} ended" + ("" if code is None else f" with exit code {code}")

    def _cause(self) -> str | None:
        """The rank that was killed: those that waited for it fail, too, and may have been heard first."""
        until = time.monotonic() + CAUSE_S
        while time.monotonic() < until:
            killed = [rank for rank, process in enumerate(self._processes) if (process.poll() or 0) < 0]
            if killed:
                return self._how_ended(killed[0])
            time.sleep(CAUSE_S / 10)
        return None

    def close(self) -> None:
        if os.getpid() == self._owner:
            self._closing.set()
            self._watcher.join()

    def _end(self, why: str) -> None:
        """End the ranks, and tell those who wait for them."""
        for ours in self._sockets:
            ours.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + END_S
        for process in self._processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join()
        with self._waiting_lock:
            self._why = why
            waiting = [*self._waiting.values(), *([] if self._loading.done() else [self._loading])]
            self._waiting.clear()
        for answer in waiting:
            answer.set_exception(self.error())
        for ours, channel in zip(self._sockets, self._channels):
            ours.close()
            channel.close()
        self._folder.cleanup()
