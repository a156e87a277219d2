"""A stream: an endless iterator of chunks of frames, sync or async, whose prompt may change."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from pyrf import forks
from pyrf.loop.finite import NotFiniteError
from pyrf.printing import counted
from pyrf.streaming.change import Change, Prompt, Scheduled, check_over, schedule, steps_of
from pyrf.streaming.chunk import Chunk
from pyrf.streaming.delivery import Delivery
from pyrf.streaming.feeds import AnyFrames, Feed
from pyrf.streaming.mix import ClipPrompt, is_one, shown, texts_of
from pyrf.streaming.model import StreamModel
from pyrf.streaming.notices import is_told_elsewhere, warn
from pyrf.streaming.prompts import PromptChange, Timeline, as_prompts
from pyrf.streaming.restyle import Source, SourceControl, check_strength
from pyrf.streaming.seeds import as_seeds
from pyrf.streaming.start import Start
from pyrf.streaming.state import ClosedError, StreamState, advance

MOST_TOLD = 1000
"""Prompts that a stream remembers to have warned of."""


class Stream:
    """An endless stream of `Chunk`s, from `StreamingPipeline.stream`.

    An iterator and an async iterator: `for chunk in stream`, or `async for chunk in stream`, which computes
    in a thread of its own. Threads and coroutines may ask at the same time: each chunk goes to exactly one.
    A cancelled `async for`, or a `for` that Ctrl-C interrupts, loses no chunk: the next one asked for is the
    one that was under way. A context manager, sync or async: leaving it frees the cache. `prompt` may be
    assigned and `close` called from any thread.
    """

    def __init__(
        self,
        model: StreamModel,
        prompt: Prompt,
        seed: int | Sequence[int],
        height: int,
        width: int,
        start: Start | None,
        timeline: Mapping[int, Change],
        source: SourceControl,
    ) -> None:
        self.model = model
        self.size = height, width
        self._single = is_one(prompt)
        self._count = len(as_prompts(prompt))
        self._seeds = as_seeds(seed, prompt)
        first = self._checked(prompt)
        later = {
            chunk: PromptChange(
                self._checked(change.prompt), change.recache, steps_of(model.times, change.over)
            )
            for chunk, change in timeline.items()
            if change.prompt is not None
        }
        self._prompts = Timeline(first, later)
        self._strengths = {chunk: change.adapters for chunk, change in timeline.items() if change.adapters}
        for strengths in self._strengths.values():
            model.adapters.check(strengths)
        if self._strengths:
            model.adapters.check_alone(self)
        self._start, self._continues = start, start is not None and start.continues
        self._source = source
        weakref.finalize(self, source.set, None).atexit = False  # ends the thread that reads
        self._closed = threading.Event()
        self._state: StreamState | None = None
        self._lock = threading.Lock()
        self._delivery = Delivery()
        self._lost: str | None = None
        # Texts that the owner of the stream was told of.
        self._told: set[str] = set()
        self._tell(*first, *(p for change in later.values() for p in change.prompts), size=(height, width))
        model.adapters.join(self)
        forks.follow(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        height, width = self.size
        return f"<Stream of {shown(self.prompt)}: {height} x {width}, {state}>"

    def _checked(self, prompt: Prompt) -> tuple[ClipPrompt, ...]:
        """A prompt for each clip, all of them good."""
        prompts = as_prompts(prompt)
        if is_one(prompt):
            prompts *= self._count
        if len(prompts) != self._count:
            raise ValueError(
                f"the stream has {counted(self._count, 'prompt')}, got {len(prompts)}; "
                "give as many, or one for all"
            )
        for one in prompts:
            for text in texts_of(one):
                self.model.check_prompt(text)
        return prompts

    def _tell(self, *prompts: ClipPrompt, size: tuple[int, int] | tuple[None, None] = (None, None)) -> None:
        """Warn of what the model has not learned, once per text, unless the owner hears of it elsewhere."""
        fresh = [text for one in prompts for text in texts_of(one) if text not in self._told]
        if len(self._told) > MOST_TOLD:
            self._told.clear()
        self._told.update(fresh)
        if not is_told_elsewhere():
            warn(self.model.notices(*fresh, height=size[0], width=size[1]))

    @property
    def prompt(self) -> ClipPrompt | tuple[ClipPrompt, ...]:
        """The newest prompt, or the tuple of them; assign to switch at the next chunk.

        Of a weighted prompt it is a tuple of (text, weight) pairs, the weights with a sum of 1.
        """
        prompts = self._prompts.newest
        return prompts[0] if self._single else prompts

    @prompt.setter
    def prompt(self, prompt: Prompt) -> None:
        self.set_prompt(prompt)

    def set_prompt(self, prompt: Prompt, *, recache: bool = False, over: float = 0.0) -> Scheduled:
        """Change the prompt at the next chunk; of several changes before it the last one counts.

        Args:
            prompt: for all clips of the stream, or a list of as many as it has: a text each, or up to 8
                (text, weight) pairs. Two texts are blended by slerp of their rows, more by a mean.
            recache: also re-run the window under the new prompt (LongLive's KV recache), so that motion
                follows it sooner. With `over` it is done once, at the chunk that shows the prompt wholly.
            over: seconds in which the prompt in force turns into the new one, a step per chunk; on the way
                of an earlier change it begins where that has come to. Before the first chunk there is
                nothing to turn from, and the prompt is in force at once.

        Returns:
            The chunk and the second at which the change will be seen, and at which it is complete. A prompt
            of the stream's timeline for that chunk goes before.

        Raises:
            ValueError: when a text is empty or too long, a weight or `over` is out of range, the number of
                prompts is wrong, or the stream is closed.
        """
        self._check_open()
        check_over(over)
        prompts = self._checked(prompt)
        self._tell(*prompts)
        times = self.model.times
        chunk = self._prompts.assign(PromptChange(prompts, recache, steps_of(times, over)))
        return schedule(times, chunk, over, continues=self._continues)

    @property
    def adapters(self) -> dict[str, float]:
        """Strengths of the pipeline's adapters by name: those in force, or from the next chunk on."""
        return self.model.adapters.strengths

    def set_adapters(self, strengths: Mapping[str, float]) -> None:
        """Change strengths of adapters at the next chunk; those that are not named stay.

        Streams of one pipeline share its weights, so all of them change.

        Raises:
            ValueError: when there is no such adapter, a strength is no number of -10..10, the backend cannot
                change them, another stream would change that does not share them, or the stream is closed.
        """
        self._check_open()
        checked = self.model.adapters.check(strengths)
        self.model.adapters.check_alone(self)
        self.model.adapters.want(checked)

    @property
    def strength(self) -> float:
        """How far the prompt changes the source's frames, 0..1; assign to change it at the next chunk."""
        return self._source.strength

    @strength.setter
    def strength(self, strength: float) -> None:
        self._check_open()
        self._source.strength = check_strength(strength)

    @property
    def follow_motion(self) -> bool:
        """Whether the strength is lowered where a source moves; assign to change it at the next chunk."""
        return self._source.follows_motion

    @follow_motion.setter
    def follow_motion(self, follows: bool) -> None:
        self._source.follows_motion = follows

    def set_source(self, source: Source | AnyFrames | Feed | None) -> None:
        """Restyle the frames of a source from the next chunk on, in place of those of another.

        Args:
            source: see `StreamingPipeline.stream`; None: go on from the prompt alone.

        Raises:
            ValueError: when the stream is closed, or it is no source.
        """
        self._check_open()
        if source is None or isinstance(source, Feed):
            self._source.set(source)
        else:
            given = source if isinstance(source, Source) else Source(source)
            self._source.set(given.open(self.model, *self.size), given.at_end)

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the stream and free its memory; a chunk under way in another thread is given up."""
        self._closed.set()
        self.model.adapters.leave(self)
        self._source.set(None)  # ends a wait for its frames
        with self._lock:
            self._state = self._start = None
        self._delivery.end()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        chunk = self._delivery.next(self._compute)
        if chunk is None:
            raise StopIteration
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await self._delivery.anext(self._compute)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @contextmanager
    def computing(self) -> Iterator[StreamState | None]:
        """Inside, the next chunk is computed by this thread alone, on what the stream holds.

        Yields None when the stream is closed. An error closes it; `ClosedError` goes no further.
        """
        if not self.closed:
            for chunk in sorted(chunk for chunk in self._strengths if chunk <= self._prompts.next_chunk):
                self.set_adapters(self._strengths.pop(chunk))
        with self._lock:
            if self._lost is not None:
                raise RuntimeError(self._lost)
            forks.warn_once()
            try:
                yield None if self.closed else self._opened()
            except ClosedError:
                pass
            except BaseException:
                self.give_up()
                raise

    def give_up(self) -> None:
        """Inside `computing`, end the stream and free its memory: it cannot go on."""
        self._closed.set()
        self.model.adapters.leave(self)
        self._source.set(None)
        self._state = None

    def _after_fork(self) -> None:
        """Go on in the child of a fork, where that can be done (a `pyrf.forks.Follower`)."""
        idle = self._delivery.after_fork() and not self._lock.locked()
        self._lock = threading.Lock()
        self._prompts.after_fork()
        self._source.after_fork()
        has_source = self._source.current[0] is not None  # its thread is the parent's
        if not idle or (self._state is not None and (has_source or not self.model.survives_fork)):
            self._state = None
            self._lost = (
                "this stream is the parent's: it had begun when the process was forked, and cannot go on in "
                "the child; begin another one here"
            )

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the stream is closed; begin another one with pipe.stream(...)")

    def _opened(self) -> StreamState:
        """What the stream holds, from its first chunk on."""
        if self._state is None:
            start, self._start = self._start, None
            self._state = StreamState(
                self.model,
                self._seeds,
                self.size,
                self._prompts,
                single=self._single,
                start=start,
                source=self._source,
                closed=self._closed,
            )
        return self._state

    def _compute(self) -> Chunk | None:
        """The next chunk; None when the stream is closed."""
        with self.computing() as state:
            if state is not None:
                (chunk,) = advance([state])
                if isinstance(chunk, NotFiniteError):
                    raise chunk
                if chunk is None:
                    self.give_up()
                return chunk
        return None
