"""Frames that a running stream restyles, fitted to its size and rate: in order, or the newest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from pyrf.video.fitting import fitted
from pyrf.video.levels import as_levels
from pyrf.video.writer import Frames

AnyFrames = Iterable[Any] | AsyncIterable[Any]
"""Frames [H, W, 3] one by one: uint8, uint16, or floats of 0..1; their size may change."""
MAX_SIDE = 8192
"""Pixels of a side of a given frame."""


class FeedClosedError(Exception):
    """Nobody wants further frames."""


@runtime_checkable
class Feed(Protocol):
    """Where a stream's source frames come from."""

    def take(self, count: int) -> Frames | None:
        """The next frames, uint8 [count, H, W, 3]; None when the source has ended.

        Raises:
            FeedClosedError: when `close` was called.
        """
        ...

    def close(self) -> None:
        """End every wait, and let go of the source. From any thread."""
        ...


def source_frame(frame: Any, height: int, width: int) -> Frames:
    """One frame [H, W, 3] scaled to cover a size, and cropped evenly.

    Raises:
        ValueError: when it is no picture.
    """
    pixels = as_levels(np.asarray(frame), "a frame of the source")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"a frame of the source must be [H, W, 3], got {list(pixels.shape)}")
    if max(pixels.shape) > MAX_SIDE:
        raise ValueError(f"a frame of the source may have sides of {MAX_SIDE}, got {list(pixels.shape[:2])}")
    if pixels.shape[:2] == (height, width):
        return np.array(pixels)  # the caller may use its memory again
    return fitted(Image.fromarray(np.ascontiguousarray(pixels)), 1.0, height, width, "crop")


class _Ending:
    """What both feeds share: the size of frames, a change that is waited for, and how frames end."""

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def end(self, error: BaseException | None = None) -> None:
        """There are no more frames; an error is raised where the next one is taken."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()


class InOrder(_Ending):
    """Every frame is waited for and none is lost, as of a file (a `Feed`).

    Of a rate above the stream's some frames are left out, of one below some are shown again. After the last
    frame a chunk is filled up with it.

    Args:
        most: frames that wait; whoever puts further ones has to wait.
        ratio: the stream's frames per second over the source's.
    """

    def __init__(self, height: int, width: int, ratio: float = 1.0, most: int = 16) -> None:
        super().__init__(height, width)
        self._ratio, self._most = ratio, most
        self._waiting: deque[Frames] = deque()
        self._given = self._shown = 0

    def put(self, frame: Any) -> None:
        """Take a frame, once there is room.

        Raises:
            ValueError: when it is no picture.
            FeedClosedError: when the feed is closed.
        """
        self._given += 1
        # A millionth of a frame: thirds and the like are not exact.
        times = max(0, int(np.ceil(self._given * self._ratio - 1e-6)) - self._shown)
        self._shown += times
        pixels = source_frame(frame, self._height, self._width) if times else None
        for _ in range(times):
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) < self._most or self._closed)
                if self._closed:
                    raise FeedClosedError
                assert pixels is not None
                self._waiting.append(pixels)
                self._changed.notify_all()

    def take(self, count: int) -> Frames | None:
        taken: list[Frames] = []
        while len(taken) < count:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended or self._closed)
                if self._closed:
                    raise FeedClosedError
                if self._waiting:
                    taken.append(self._waiting.popleft())
                    self._changed.notify_all()
                    continue
                if self._error is not None:
                    raise self._error
            if not taken:
                return None
            taken += [taken[-1]] * (count - len(taken))
        return np.stack(taken)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()


class Newest(_Ending):
    """The newest frames, as of a camera: those that come too early or late are dropped (a `Feed`).

    A chunk shows the time since the chunk before it, at most as long as it lasts. A frame is seen until the
    next one comes.

    Args:
        fps: frames per second of the stream.
        longest: frames of the longest chunk.
        waits: whether `take` waits until as much time has passed as a chunk lasts, so that a fast model does
            not run ahead of the camera. The first frame is always waited for, unless `waits` is false: then
            `ready` says whether there is one.
        clock: seconds.
    """

    def __init__(
        self,
        height: int,
        width: int,
        fps: float,
        longest: int,
        *,
        waits: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(height, width)
        self._fps, self._waits, self._clock = fps, waits, clock
        self._kept: deque[tuple[float, Frames]] = deque(maxlen=2 * longest)
        self._until: float | None = None

    @property
    def ready(self) -> bool:
        """Whether `take` has something to show."""
        return bool(self._kept) or self._ended

    def put(self, frame: Any) -> None:
        """Take a frame that is seen from now on.

        Raises:
            ValueError: when it is no picture.
            FeedClosedError: when the feed is closed.
        """
        pixels = source_frame(frame, self._height, self._width)
        with self._changed:
            if self._closed:
                raise FeedClosedError
            now = self._clock()
            # Of two frames within half a frame of the stream the later one is enough.
            if len(self._kept) > 1 and now - self._kept[-2][0] < 0.5 / self._fps:
                self._kept.pop()
            self._kept.append((now, pixels))
            self._changed.notify_all()

    def take(self, count: int) -> Frames | None:
        with self._changed:
            if self._waits or not self._kept:
                self._changed.wait_for(lambda: self._kept or self._ended or self._closed)
            if self._waits and self._until is not None:
                until = self._until + count / self._fps
                while not (self._ended or self._closed) and (left := until - self._clock()) > 0:
                    self._changed.wait(left)
            if self._closed:
                raise FeedClosedError
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            return self._since_last(count)

    def _since_last(self, count: int) -> Frames:
        """The frames that are seen at `count` moments up to now, none of which lies before the last chunk."""
        now = self._clock()
        begin = now - count / self._fps if self._until is None else max(self._until, now - count / self._fps)
        self._until = now
        moments = [max(begin, now - (count - 1 - i) / self._fps) for i in range(count)]
        shown, place = [], 0
        for moment in moments:
            while place + 1 < len(self._kept) and self._kept[place + 1][0] <= moment + 1e-6:
                place += 1
            shown.append(self._kept[place][1])
        while len(self._kept) > 1:  # the last one stays to be seen
            self._kept.popleft()
        return np.stack(shown)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._kept.clear()
            self._changed.notify_all()


def pump(frames: AnyFrames, feed: InOrder | Newest, loop: asyncio.AbstractEventLoop | None) -> None:
    """Put frames into a feed, in a thread of its own, until they end or the feed is closed.

    Args:
        loop: where an async iterator is asked; None: in a loop of the thread.
    """

    def run() -> None:
        error: BaseException | None = None
        try:
            for frame in _one_by_one(frames, loop):
                feed.put(frame)
        except FeedClosedError:
            pass
        except BaseException as raised:  # it is raised again where the stream takes frames
            error = raised
        feed.end(error)

    threading.Thread(target=run, name="pyrf-source", daemon=True).start()


def _one_by_one(frames: AnyFrames, loop: asyncio.AbstractEventLoop | None) -> Iterator[Any]:
    if not isinstance(frames, AsyncIterable):
        yield from frames
        return
    own = asyncio.new_event_loop() if loop is None else None
    iterator = aiter(frames)

    async def following() -> Any:
        return await anext(iterator)

    try:
        while True:
            try:
                if own is not None:
                    yield own.run_until_complete(following())
                elif loop is not None:
                    yield asyncio.run_coroutine_threadsafe(following(), loop).result()
            except StopAsyncIteration:
                return
    finally:
        if own is not None:
            own.run_until_complete(own.shutdown_asyncgens())
            own.close()
