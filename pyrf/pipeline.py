"""The public API: `StreamingPipeline` turns prompts into `Video`s or endless `Stream`s."""

from __future__ import annotations

import asyncio
import math
import operator
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrf.backends.torch import TorchBackend
from pyrf.bundle import Bundle, load_bundle
from pyrf.config import PATCH, StreamConfig
from pyrf.models.codec import Codec
from pyrf.text import clean_prompt
from pyrf.video import Frames, Video

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BACKENDS = ("torch",)
MAX_SEED = 2**63 - 1

Prompt = str | Sequence[str]


@dataclass(frozen=True)
class Timing:
    """Seconds that a chunk took.

    Attributes:
        prompt: putting a new prompt in force; in the first chunk the start image or video, too.
        denoise: the network's denoise calls.
        clean: the call that writes the finished chunk to the cache.
        decode: latents to uint8 frames on the host.
        total: the whole chunk.
    """

    prompt: float
    denoise: float
    clean: float
    decode: float
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


class StreamingPipeline:
    """A model, loaded and ready: call it for a `Video`, or `stream` from it without end.

    Streams of one pipeline share its weights; each has its own cache, decoder memory and random state, so
    they may run side by side. Make one by `from_pretrained`.

    Attributes:
        fps: frames a second of what it makes.
        height, width: of a frame, unless a stream asks for others.
    """

    def __init__(self, bundle: Bundle, *, backend: str, dtype: torch.dtype, device: torch.device) -> None:
        self.backend = backend
        self.dtype = dtype
        self.device = device
        self.model_config = bundle.model_config
        self.stream_config = bundle.stream_config
        self.height: int = bundle.height
        self.width: int = bundle.width
        self.text_encoder = bundle.text_encoder(dtype=dtype, device=device)
        self.codec: Codec = bundle.codec(device=device)
        self.transformer = bundle.transformer(dtype=dtype, device=device)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        student: str | None = None,
        revision: str | None = None,
        backend: str = "torch",
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        window_frames: int | None = None,
    ) -> Self:
        """Load a model.

        Args:
            name: "tiny" (bundled), a directory in the diffusers layout or in Wan's own, or a hub id.
            student: weights that replace the model's: a file or a hub id.
            revision: of the hub repository.
            backend: who computes; "torch".
            dtype: "float32" or "bfloat16", of the network and the cache.
            device: "cpu", "cuda", "cuda:1", ...
            window_frames: latent frames that a chunk sees, sink and itself included; by default the model's.

        Raises:
            ValueError: when something is unknown, missing or damaged, or the window is not one the cache holds.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        chosen_dtype, chosen_device = _check_dtype(dtype), _check_device(device)
        bundle = load_bundle(name, student=student, revision=revision)
        if window_frames is not None:
            bundle = replace(bundle, stream_config=replace(bundle.stream_config, window_frames=window_frames))
        return cls(bundle, backend=backend, dtype=chosen_dtype, device=chosen_device)

    @property
    def fps(self) -> float:
        return self.codec.fps

    @overload
    def __call__(
        self,
        prompt: str,
        num_frames: int = 81,
        seed: int = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Frames | None = None,
        video: Frames | None = None,
    ) -> Video: ...

    @overload
    def __call__(
        self,
        prompt: Sequence[str],
        num_frames: int = 81,
        seed: int | Sequence[int] = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Frames | None = None,
        video: Frames | None = None,
    ) -> list[Video]: ...

    def __call__(
        self,
        prompt: Prompt,
        num_frames: int = 81,
        seed: int | Sequence[int] = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Frames | None = None,
        video: Frames | None = None,
    ) -> Video | list[Video]:
        """Make a video of `num_frames` frames, or one for each of a list of prompts.

        See `stream` for the other arguments and the errors.
        """
        if _as_int(num_frames, "num_frames") < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        stream = self.stream(prompt, seed, height=height, width=width, image=image, video=video)
        parts: list[Frames] = []
        with stream:
            while sum(part.shape[-4] for part in parts) < num_frames:
                parts.append(next(stream).frames)
        frames = np.concatenate(parts, axis=-4)[..., :num_frames, :, :, :]
        if isinstance(prompt, str):
            return Video(frames, self.fps)
        return [Video(clip, self.fps) for clip in frames]

    def stream(
        self,
        prompt: Prompt,
        seed: int | Sequence[int] = 0,
        *,
        height: int | None = None,
        width: int | None = None,
        image: Frames | None = None,
        video: Frames | None = None,
    ) -> Stream:
        """Start an endless stream of chunks; nothing is computed before the first is asked for.

        Args:
            prompt: what to show; a list of B prompts gives B clips side by side.
            seed: the same prompts and seeds give the same frames. For B prompts B seeds, or one from which
                they count up. Element b of a batch shows what its prompt and seed show alone.
            height, width: of a frame in pixels; by default the model's.
            image: uint8 [H, W, 3] to continue from, as if it had stood still until now.
            video: uint8 [T, H, W, 3] to continue from; whole chunks of its end are used.

        Raises:
            ValueError: when an argument is of the wrong kind, size or number, or a prompt is empty or too long.
        """
        height, width = self.check_size(height, width)
        start = self._check_start(image, video, height, width)
        return Stream(self, prompt, seed, height, width, start)

    def check_prompt(self, prompt: str) -> None:
        """Refuse a prompt that the text encoder would not see whole.

        Raises:
            ValueError: when it is no string, empty, or longer than the model's text rows.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string, got {type(prompt).__name__}; say what to show in words")
        text = clean_prompt(prompt)
        if not text:
            raise ValueError("the prompt is empty; say what to show in words")
        if self.text_encoder.tokenizer.encode(text).overflowing:
            raise ValueError(
                f"the prompt has {len(text.split())} words, more than the {self.text_encoder.text_len} tokens "
                "that this model reads; shorten it"
            )

    def check_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """The size of a frame, the model's where not given.

        Raises:
            ValueError: when it does not split into the network's patches.
        """
        given = {"height": self.height if height is None else height, "width": self.width if width is None else width}
        for (name, value), patch in zip(given.items(), PATCH[1:]):
            multiple = self.codec.spatial_stride * patch
            if _as_int(value, name) < multiple or value % multiple:
                nearest = max(1, round(value / multiple)) * multiple
                raise ValueError(f"{name} must be a positive multiple of {multiple}, got {value}; try {nearest}")
        return given["height"], given["width"]

    def num_frames_of(self, chunks: int) -> int:
        """Frames that the first `chunks` chunks of a stream have."""
        latent_frames = chunks * self.stream_config.chunk_frames
        return 1 + self.codec.temporal_stride * (latent_frames - 1)

    def num_chunks_of(self, num_frames: int) -> int:
        """Chunks that a stream needs for its first `num_frames` frames."""
        latent_frames = 1 + math.ceil((num_frames - 1) / self.codec.temporal_stride)
        return math.ceil(latent_frames / self.stream_config.chunk_frames)

    def _check_start(
        self, image: Frames | None, video: Frames | None, height: int, width: int
    ) -> Frames | None:
        """The start of a stream as whole chunks of frames [T, H, W, 3]."""
        if image is not None and video is not None:
            raise ValueError("give an image or a video to start from, not both")
        name, given = ("image", image) if video is None else ("video", video)
        if given is None:
            return None
        frames = np.asarray(given)
        axes = "[H, W, 3]" if name == "image" else "[T, H, W, 3]"
        if frames.dtype != np.uint8 or frames.ndim != axes.count(",") + 1 or not frames.size:
            raise ValueError(f"{name} must be uint8 {axes}, got {frames.dtype} {list(frames.shape)}")
        if frames.shape[-3:] != (height, width, 3):
            raise ValueError(
                f"{name} must have the size of the stream, {height} x {width} x 3, "
                f"got {' x '.join(map(str, frames.shape[-3:]))}; scale it first"
            )
        frames = frames.reshape(-1, height, width, 3)
        chunks = max(1, self.num_chunks_of(len(frames) + 1) - 1)  # as many whole ones as there are
        wanted = self.num_frames_of(chunks)
        held = np.repeat(frames[:1], max(0, wanted - len(frames)), axis=0)
        return np.concatenate([held, frames[-wanted:]])


class Stream:
    """An endless stream of `Chunk`s, from `StreamingPipeline.stream`.

    An iterator and an async iterator: `for chunk in stream`, or `async for chunk in stream`, which computes
    in a thread of its own. A cancelled `async for` loses no chunk: the next one asked for is the one that
    was under way. A context manager, sync or async: leaving it frees the cache. `prompt` may be assigned
    from any thread.
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
        self._single = isinstance(prompt, str)
        prompts = (prompt,) if isinstance(prompt, str) else tuple(_as_list(prompt, "prompt", "strings"))
        if not prompts:
            raise ValueError("the list of prompts is empty; give at least one")
        for text in prompts:
            pipe.check_prompt(text)
        self._pipe = pipe
        self._prompts = prompts
        self._seeds = _check_seeds(seed, len(prompts), single=self._single)
        self._latent_size = (height // pipe.codec.spatial_stride, width // pipe.codec.spatial_stride)
        self._start = start
        self._index = 0
        self._closed = False
        self._rollout: _Rollout | None = None
        # The newest prompts assigned but not yet in force, and whether to recache; guarded by its lock.
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
        return self._public(prompts)

    @prompt.setter
    def prompt(self, prompt: Prompt) -> None:
        self.set_prompt(prompt)

    def set_prompt(self, prompt: Prompt, *, recache: bool = False) -> None:
        """Switch the prompt at the next chunk border; of several assignments before it the last one counts.

        Args:
            prompt: a string for all clips, or as many as the stream has.
            recache: re-run the window under the new prompt (LongLive's KV recache), so that the past
                holds the stream to the old one less.

        Raises:
            ValueError: when a prompt is no string, empty or too long, or their number is wrong.
        """
        if isinstance(prompt, str):
            prompts = (prompt,) * len(self._prompts)
        else:
            prompts = tuple(_as_list(prompt, "prompt", "strings"))
        if len(prompts) != len(self._prompts):
            raise ValueError(f"the stream has {len(self._prompts)} prompts, got {len(prompts)}")
        for text in prompts:
            self._pipe.check_prompt(text)
        with self._prompt_lock:
            self._assigned = prompts, recache

    def close(self) -> None:
        """End the stream and free its memory; waits for a chunk that another thread computes."""
        self._closed = True
        with self._compute_lock:
            self._rollout = None
            self._under_way = None
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        chunk = self._compute()
        if chunk is None:
            raise StopIteration
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._under_way is None:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="pyrf-stream")
            self._under_way = self._executor.submit(self._compute)
        chunk = await asyncio.shield(asyncio.wrap_future(self._under_way))
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


def _as_int(value: object, name: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def _as_list(value: object, name: str, kind: str) -> list[Any]:
    """The items of a sequence that is no string; sets and mappings have no order and are refused."""
    if isinstance(value, Sequence) or isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value)
    raise ValueError(f"{name} must be one of {kind} or a list of them, got {type(value).__name__}")


def _check_seeds(seed: int | Sequence[int], count: int, *, single: bool) -> list[int]:
    """A seed for each of `count` clips."""
    ...


def _check_dtype(dtype: str | torch.dtype) -> torch.dtype:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def _check_device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be cpu, cuda, cuda:1, ..., got {device!r}") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda, cuda:1, ..., got {str(chosen)!r}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(chosen)!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device 'cpu', or install a CUDA build of torch"
        )
    return chosen
