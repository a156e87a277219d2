"""What a stream hands out: a chunk of frames, and the seconds that it took."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pyrf.streaming.mix import ClipPrompt, shown


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
        source: waiting for the frames of a source, and encoding them.
    """

    prompt: float
    denoise: float | None
    clean: float | None
    decode: float | None
    total: float
    source: float = 0.0


@dataclass(frozen=True, eq=False)
class Chunk:
    """The next frames of a stream.

    Attributes:
        frames: uint8 [T, H, W, 3], or [B, T, H, W, 3] for a list of prompts.
        index: 0, 1, ... in its stream.
        prompt: the prompt in force, or that the stream turns to, or the tuple of them.
        timing: the seconds it took.
        progress: how far the stream has turned to the prompt, 1 being wholly.
        strength: noise level that the frames of its source were brought to; None: it shows the prompt alone.
    """

    frames: NDArray[np.uint8]
    index: int
    prompt: ClipPrompt | tuple[ClipPrompt, ...]
    timing: Timing
    progress: float = 1.0
    strength: float | None = None

    def __repr__(self) -> str:
        return (
            f"<Chunk {self.index}: {self.frames.dtype} {list(self.frames.shape)}, "
            f"{shown(self.prompt)}, {1e3 * self.timing.total:.0f} ms>"
        )


class Clock:
    """Wall time by laps; on a CUDA device, if one is given, what was launched is waited for.

    It starts when the device has done what it was given before.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device
        self._last = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin again, as a new clock does."""
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
