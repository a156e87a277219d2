"""The public API: `StreamingPipeline` turns prompts into `Video`s or endless `Stream`s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, overload

import numpy as np
import torch

from pyrf.backends.choice import check_backend, load_backend
from pyrf.bundle.bundle import Bundle, load_bundle
from pyrf.dtypes import dtype_of, name_of
from pyrf.models.codecs.codec import latent_size
from pyrf.models.text.encoder import clean_prompt
from pyrf.streaming.stream import Chunk, Prompt, Stream, Timing, as_int
from pyrf.video.files import Video
from pyrf.video.writer import Frames

__all__ = ["Chunk", "Stream", "StreamingPipeline", "Timing", "Video"]

DTYPES = ("float32", "bfloat16", "float16")


class StreamingPipeline:
    """A model, loaded and ready: call it for a `Video`, or `stream` from it without end.

    Streams of one pipeline share its weights; each has its own cache, decoder memory and random state, so
    they may run side by side. Make one by `from_pretrained`.

    Attributes:
        fps: frames a second of what it makes.
        height, width: of a frame, unless a stream asks for others.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str,
        dtype: torch.dtype,
        device: torch.device,
        exported: str | Path | None = None,
    ) -> None:
        self.backend = backend
        self.dtype = dtype
        self.device = device
        self.model_config = bundle.model_config
        self.stream_config = bundle.stream_config
        self.height: int = bundle.height
        self.width: int = bundle.width
        # The text encoder's activations may leave the range of float16; its rows do not.
        text_dtype = torch.bfloat16 if dtype == torch.float16 else dtype
        self.text_encoder = bundle.text_encoder(dtype=text_dtype, device=device)
        self.codec = bundle.codec(dtype=dtype, device=device)
        self.engine = load_backend(backend, bundle, self.codec, dtype=dtype, device=device, exported=exported)

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
        exported: str | Path | None = None,
    ) -> Self:
        """Load a model.

        Args:
            name: "tiny" (bundled), a directory in the diffusers layout or in Wan's own, or a hub id.
            student: weights that replace the model's: a file or a hub id.
            revision: of the hub repository.
            backend: who computes: "torch", "onnxruntime" (on a CPU, in float32) or "tensorrt" (on a GPU, in
                bfloat16 or float16).
            dtype: "float32" or "bfloat16", of the network and the cache; for tensorrt also "float16".
            device: "cpu", "cuda", "cuda:1", ...
            window_frames: latent frames that a chunk sees, sink and itself included; by default the model's.
            exported: a folder that `pyrf export` wrote, for a backend that runs graphs. By default the model
                is exported when a size is first used, and kept in $PYRF_CACHE, else ~/.cache/pyrf.

        Raises:
            ValueError: when something is unknown, missing or damaged, or the window is too long or does not
                fit the chunk.
        """
        check_backend(backend, exported)
        chosen_dtype, chosen_device = _check_dtype(dtype, backend), check_device(device)
        bundle = load_bundle(name, student=student, revision=revision)
        if window_frames is not None:
            bundle = replace(bundle, stream_config=replace(bundle.stream_config, window_frames=window_frames))
        return cls(bundle, backend=backend, dtype=chosen_dtype, device=chosen_device, exported=exported)

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
        prompt: list[str] | tuple[str, ...],
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
        if as_int(num_frames, "num_frames") < 1:
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
            ValueError: when an argument has the wrong kind, size or number, or a prompt is empty or too long.
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
            raise ValueError(
                f"a prompt must be a string, got {type(prompt).__name__}; say what to show in words"
            )
        text = clean_prompt(prompt)
        if not text:
            raise ValueError("the prompt is empty; say what to show in words")
        if self.text_encoder.tokenizer.encode(text).overflowing:
            raise ValueError(
                f"the prompt has {len(text.split())} words, which is more than the "
                f"{self.text_encoder.text_len} tokens that this model reads; shorten it"
            )

    def check_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """The size of a frame, the model's where not given.

        Raises:
            ValueError: when it does not split into the network's patches, is too large, or is not that of
                `exported`.
        """
        height = self.height if height is None else as_int(height, "height")
        width = self.width if width is None else as_int(width, "width")
        self.engine.check_size(*latent_size(height, width, self.codec))
        return height, width

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


def _check_dtype(dtype: str | torch.dtype, backend: str) -> torch.dtype:
    name = name_of(dtype) if isinstance(dtype, torch.dtype) else dtype
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    if name == "float16" and backend != "tensorrt":
        raise ValueError("dtype float16 is for the tensorrt backend alone; give float32 or bfloat16")
    return dtype_of(name)


def check_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: when there is no such device.
    """
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
