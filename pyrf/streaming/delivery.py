"""Who gets a chunk: each goes to exactly one who asks, and none is lost when a wait is broken off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial

import torch

from pyrf.stops import held
from pyrf.streaming.chunk import Chunk

Compute = Callable[[], Chunk | None]
"""Makes the next chunk; None when the stream has ended."""


INTERRUPT_S = 0.5
"""Seconds after which an interrupt is heard at the latest."""


class Delivery:
    """Hands the chunks of a stream out, one at a time, to threads and event loops.

    One chunk at most is under way. Whoever asks waits for it, and takes it once it is done; of several who
    wait one takes it, and the others ask again. So a wait that is cancelled or interrupted takes nothing, and
    the next one asked for is the chunk that was under way. An error is delivered like a chunk.

    Event loops wait for a thread of the stream, as they must stay free. Others compute what they ask for, as
    torch on a CPU is slower in a further thread. In the main thread Ctrl-C is heard once the chunk is made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Future[Chunk | None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._ended = False

    def next(self, compute: Compute) -> Chunk | None:
        """The next chunk; None when the stream has ended."""
        while (future := self._ask(None)) is not None:
            with held():  # Ctrl-C would leave a chunk half made
                self._fulfil(future, compute)
            # A signal that comes just before a thread blocks does not wake it: it looks for one now and then.
            while wait([future], INTERRUPT_S).not_done:
                pass
            if self._take(future):
                return _result(future)
        return None

    async def anext(self, compute: Compute) -> Chunk | None:
        """`next` for a coroutine of asyncio."""
        loop = asyncio.get_running_loop()
        while (future := self._ask(compute)) is not None:
            done = loop.create_future()
            future.add_done_callback(partial(_tell, loop, done))
            await done
            if self._take(future):
                return _result(future)
        return None

    def end(self) -> None:
        """Deliver nothing any more; a chunk that nobody has taken is dropped."""
        with self._lock:
            self._ended, self._under_way = True, None
            if self._executor is not None:
                self._executor.shutdown(wait=False)

    def after_fork(self) -> bool:
        """Go on in the child, without the parent's threads; False when one of them was making a chunk."""
        self._lock = threading.Lock()
        self._executor = None
        if self._under_way is None or self._under_way.done():
            return True
        self._under_way = None
        return False

    def _ask(self, compute: Compute | None) -> Future[Chunk | None] | None:
        """The chunk that is under way or waits to be taken, else a new one; None when there are no more.

        Args:
            compute: for the stream's thread to make it by; None: the caller will make it.
        """
        with self._lock:
            if self._ended:
                return None
            if self._under_way is None:
                self._under_way = Future()
            future = self._under_way
            # It may have been submitted already, which does no harm. To do it once would lose the chunk when
            # an interrupt strikes between the two steps.
            if compute is not None and not (future.running() or future.done()):
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(1, thread_name_prefix="pyrf-stream")
                self._executor.submit(self._fulfil, future, compute, torch.get_num_threads())
            return future

    def _take(self, future: Future[Chunk | None]) -> bool:
        """Whether what is done is the caller's."""
        with self._lock:
            is_mine = self._under_way is future
            if is_mine:
                self._under_way = None
            return is_mine

    def _fulfil(self, future: Future[Chunk | None], compute: Compute, num_threads: int | None = None) -> None:
        """Make a chunk, unless another thread has begun to.

        Args:
            num_threads: that torch uses in the thread of whoever asked; it keeps a number for each thread.
        """
        with self._lock:
            if future.running() or future.done():
                return
            future.set_running_or_notify_cancel()
        try:
            if num_threads is not None and num_threads != torch.get_num_threads():
                torch.set_num_threads(num_threads)
            chunk = compute()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(chunk)


def _result(future: Future[Chunk | None]) -> Chunk | None:
    """What was made, or the error, whose traceback must not hold the future that holds it."""
    try:
        return future.result()
    finally:
        del future


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], _: Future[Chunk | None]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
        loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))
