"""A stream: an endless iterator of chunks of frames, sync or async, whose prompt may change."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrf.backends.base import OverlappedDecoder, Rollout
from pyrf.backends.torch.joint import JointRollout
from pyrf.config import MAX_SEED
from pyrf.loop.sampler import ChunkLoop, SeededNoise
from pyrf.video.writer import Frames

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

Prompt = str | list[str] | tuple[str, ...]
Inner = TypeVar("Inner", Rollout, JointRollout)


@dataclass(frozen=True)
class Timing:
    """Seconds that a chunk took.

    The TensorRT backend begins a chunk's calls while it decodes the chunk before: its `denoise`, `clean` and
    `decode` are None, and `prompt` waits for no GPU.

    Attributes:
        prompt: putting a new prompt in force; in the first chunk the start image or video, too.
        denoise: the network's denoise calls, noise and sink update included.
        clean: the call that writes the finished chunk to the cache.
        decode: latents to uint8 frames on the host.
        total: from asking for the chunk to its frames on the host.
    """

    prompt: float
    denoise: float | None
    clean: float | None
    decode: float | None
    total: float


@dataclass(frozen=True, eq=False)
class Chunk:
    """The next frames of a stream.

    Attributes:
        frames: uint8 [T, H, W, 3], or [B, T, H, W, 3] for a list of prompts.
        index: 0, 1, ... in its stream.
        prompt: the prompt in force, or the tuple of them.
        timing: the seconds it took.
    """

    frames: NDArray[np.uint8]
    index: int
    prompt: str | tuple[str, ...]
    timing: Timing


class Stream:
    """An endless stream of `Chunk`s, from `StreamingPipeline.stream`.

    An iterator and an async iterator: `for chunk in stream`, or `async for chunk in stream`, which computes
    in a thread of its own. A cancelled `async for` loses no chunk: the next one asked for is the one that
    was under way. A context manager, sync or async: leaving it frees the cache. `prompt` may be assigned
    and `close` called from any thread.
    """

    def __init__(
        self,
        pipe: StreamingPipeline,
        prompt: Prompt,
        seed: int | Sequence[int],
        height: int,
        width: int,
        start: Frames | None,
    ) -> None:
        prompts = as_prompts(prompt)
        for text in prompts:
            pipe.check_prompt(text)
        self._pipe = pipe
        self._seeds = as_seeds(seed, prompt)
        self._single = isinstance(prompt, str)
        self._size = height, width
        self._start = start
        self._index = 0
        self._closed = False
        self._rollout: _Rollout | None = None
        self._prompts = prompts
        # The newest prompts that are not yet in force, and whether to recache; both guarded by the lock.
        self._assigned: tuple[tuple[str, ...], bool] | None = (prompts, False)
        self._prompt_lock = threading.Lock()
        self._compute_lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._under_way: Future[Chunk | None] | None = None

    @property
    def prompt(self) -> str | tuple[str, ...]:
        """The newest prompt, or the tuple of them; assign to switch at the next chunk."""
        with self._prompt_lock:
            prompts = self._prompts if self._assigned is None else self._assigned[0]
        return prompts[0] if self._single else prompts

    @prompt.setter
    def prompt(self, prompt: Prompt) -> None:
        self.set_prompt(prompt)

    def set_prompt(self, prompt: Prompt, *, recache: bool = False) -> None:
        """Switch the prompt at the next chunk; of several assignments before it the last one counts.

        Args:
            prompt: a string for all clips of the stream, or a list of as many as it has.
            recache: also re-run the window under the new prompt (LongLive's KV recache), so that motion
                follows it sooner.

        Raises:
            ValueError: when a prompt is no string, empty or too long, or their number is wrong.
        """
        prompts, count = as_prompts(prompt), len(self._seeds)
        if isinstance(prompt, str):
            prompts *= count
        if len(prompts) != count:
            raise ValueError(
                f"the stream has {count} prompts, got {len(prompts)}; give as many, or one for all"
            )
        for text in prompts:
            self._pipe.check_prompt(text)
        with self._prompt_lock:
            self._assigned = prompts, recache

    def close(self) -> None:
        """End the stream and free its memory; a chunk under way in another thread is given up."""
        self._closed = True
        with self._compute_lock:
            self._rollout = self._start = None
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        under_way, self._under_way = self._under_way, None
        chunk = self._compute() if under_way is None else under_way.result()
        if chunk is None:
            raise StopIteration
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._under_way is None:
            if self._closed:
                raise StopAsyncIteration
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="pyrf-stream")
            self._under_way = self._executor.submit(self._compute)
        waited = asyncio.wrap_future(self._under_way)
        waited.add_done_callback(asyncio.Future.exception)  # an error after a cancelled wait is for the next
        try:
            chunk = await asyncio.shield(waited)
        except asyncio.CancelledError:
            raise  # the chunk stays under way, for the next to ask
        except BaseException:
            self._under_way = None
            raise
        self._under_way = None
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def _compute(self) -> Chunk | None:
        """The next chunk; None when the stream is closed. An error closes it."""
        with self._compute_lock:
            if self._closed:
                return None
            try:
                return self._next_chunk()
            except ClosedError:
                return None
            except BaseException:
                self._closed, self._rollout = True, None
                raise

    @torch.inference_mode()
    def _next_chunk(self) -> Chunk:
        rollout = self._started()
        clock = Clock(rollout.device_to_wait)
        prompt_s = self._begin_chunk(rollout, clock)
        latents = rollout.next_latents()
        return self._end_chunk(latents, clock, prompt_s, clock.lap(), rollout.backend.clean_s)

    def _started(self) -> _Rollout:
        """What the stream holds, from its first chunk on."""
        if self._rollout is None:
            self._rollout = _Rollout(self._pipe, self._seeds, self._size, lambda: self._closed)
        return self._rollout

    def _begin_chunk(self, rollout: _Rollout, clock: Clock) -> float:
        """Put a new prompt in force, if there is one: the seconds that took."""
        with self._prompt_lock:
            assigned, self._assigned = self._assigned, None
            if assigned is None:
                return 0.0
            self._prompts = assigned[0]
        rollout.set_prompts(*assigned)
        if self._start is not None:
            rollout.prefill(self._start)
            self._start = None
        return clock.lap()

    def _end_chunk(
        self, latents: Tensor, clock: Clock, prompt_s: float, loop_s: float, clean_s: float
    ) -> Chunk:
        """Decode the latents of the chunk under way."""
        assert self._rollout is not None
        frames = self._rollout.decode(latents).cpu().numpy()
        decode_s = clock.lap()
        if self._rollout.overlapped:
            timing = Timing(prompt_s, None, None, None, clock.total())
        else:
            timing = Timing(prompt_s, loop_s - clean_s, clean_s, decode_s, clock.total())
        chunk = Chunk(
            frames=frames[0] if self._single else frames,
            index=self._index,
            prompt=self._prompts[0] if self._single else self._prompts,
            timing=timing,
        )
        self._index += 1
        return chunk


class ClosedError(Exception):
    """The stream was closed while a chunk was under way."""


class Clock:
    """Wall time by laps; on a CUDA device, if one is given, what was launched is waited for.

    It starts when the device has done what it was given before.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device
        self._last = 0.0
        self.lap()
        self._start = self._last

    def lap(self) -> float:
        """Seconds since the last lap."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        last, self._last = self._last, time.perf_counter()
        return self._last - last

    def total(self) -> float:
        """Seconds up to the last lap."""
        return self._last - self._start


class WatchedRollout(Generic[Inner]):
    """A backend that times its clean call and stops between calls when the stream is closed."""

    def __init__(self, inner: Inner, closed: Callable[[], bool], device_to_wait: torch.device | None) -> None:
        self.inner: Inner = inner
        self.clean_s = 0.0
        self._closed = closed
        self._device_to_wait = device_to_wait

    def begin_chunk(self) -> None:
        self.inner.begin_chunk()

    def denoise(self, latents: Tensor, timestep: float) -> Tensor:
        if self._closed():
            raise ClosedError
        return self.inner.denoise(latents, timestep)

    def clean(self, latents: Tensor) -> None:
        clock = Clock(self._device_to_wait)
        self.inner.clean(latents)
        self.clean_s = clock.lap()

    def reopen_chunk(self) -> None:
        self.inner.reopen_chunk()


class _Rollout:
    """What a stream holds while it runs: cache, random state and the decoder's memory."""

    def __init__(
        self, pipe: StreamingPipeline, seeds: list[int], size: tuple[int, int], closed: Callable[[], bool]
    ) -> None:
        stride = pipe.codec.spatial_stride
        height, width = size[0] // stride, size[1] // stride
        self._pipe = pipe
        self._batch = len(seeds)
        backend = pipe.engine.backend(height, width)
        backend.start(self._batch, height, width)
        self.decoder = pipe.engine.decoder(self._batch, height, width)
        self.overlapped = isinstance(self.decoder, OverlappedDecoder)
        """Whether the next chunk is begun while the last one is decoded."""
        self.device_to_wait = None if self.overlapped else pipe.device
        """Where a stage's end is waited for to time it; nowhere when stages run beside each other."""
        self.backend = WatchedRollout(backend, closed, self.device_to_wait)
        shape = (pipe.stream_config.chunk_frames, pipe.codec.latent_channels, height, width)
        self.loop = ChunkLoop(self.backend, pipe.stream_config, SeededNoise(seeds, shape, pipe.device))
        self._ahead: Tensor | None = None
        """Latents of the next chunk, where it was begun while the last one was decoded."""

    def set_prompts(self, prompts: tuple[str, ...], recache: bool) -> None:
        self.backend.inner.set_prompt(self._pipe.text_encoder.encode(list(prompts)), recache)
        if self._ahead is not None:
            self._ahead = self.loop.redo_chunk()

    def next_latents(self) -> Tensor:
        latents, self._ahead = self._ahead, None
        return self.loop.next_chunk() if latents is None else latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to frames; where the decoder can, the next chunk is begun meanwhile."""
        if not isinstance(self.decoder, OverlappedDecoder):
            return self.decoder.decode(latents)
        frames = self.decoder.begin(latents)
        self._ahead = self.loop.next_chunk()
        return frames.result()

    def prefill(self, frames: Frames) -> None:
        """Take frames [T, H, W, 3] as the past of every clip."""
        latents = self._pipe.codec.encode(torch.from_numpy(frames)[None].to(self._pipe.device))
        latents = latents.expand(self._batch, -1, -1, -1, -1)
        self.loop.prefill(latents)
        self.decoder.decode(latents)  # only for its memory: the caller has these frames


def as_int(value: object, name: str) -> int:
    """A whole number of any integer type, but no bool.

    Raises:
        ValueError: for anything else.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def as_prompts(prompt: Prompt) -> tuple[str, ...]:
    """One prompt, or a list of them, as a tuple; the items are left to `check_prompt`.

    Raises:
        ValueError: when it is neither, or the list is empty.
    """
    if isinstance(prompt, str):
        return (prompt,)
    if not isinstance(prompt, list | tuple):
        raise ValueError(f"prompt must be a string or a list of strings, got {type(prompt).__name__}")
    if not prompt:
        raise ValueError("the list of prompts is empty; give at least one")
    return tuple(prompt)


def as_seeds(seed: int | Sequence[int], prompt: Prompt) -> list[int]:
    """A seed for each prompt; a single seed counts up over a list of prompts.

    Raises:
        ValueError: when a seed is no whole number of 0..MAX_SEED, or their number is wrong.
    """
    count = 1 if isinstance(prompt, str) else len(prompt)
    if isinstance(seed, Sequence) and not isinstance(seed, str) and not isinstance(prompt, str):
        if len(seed) != count:
            raise ValueError(f"seed must be one number, or one for each of {count} prompts, got {len(seed)}")
        seeds = [as_int(value, "seed") for value in seed]
    else:
        first = as_int(seed, "seed")
        seeds = [first + i for i in range(count)]
    for value in seeds:
        if not 0 <= value <= MAX_SEED:
            raise ValueError(f"seed must lie in 0..{MAX_SEED}, got {value}")
    return seeds
