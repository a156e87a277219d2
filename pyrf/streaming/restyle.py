"""Live video in: a chunk starts from the source's frames, encoded and made as noisy as its strength says."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyrf.checks import is_number
from pyrf.loop.sampler import Draw
from pyrf.loop.schedule import add_noise
from pyrf.models.codecs.codec import StreamingEncoder
from pyrf.streaming.feeds import AnyFrames, Feed, FeedClosedError, InOrder, Newest, pump
from pyrf.streaming.model import StreamModel
from pyrf.video.writer import Frames

DEFAULT_STRENGTH = 0.6
MOTION_FULL = 0.2
"""Root mean square of the change between two frames, of levels of -1..1, that counts as motion 1."""

AtEnd = Literal["text", "stop"]


class SourceEndedError(Exception):
    """The source has ended, and the stream is to end with it."""


@dataclass(frozen=True, eq=False)
class Source:
    """Frames that a stream restyles.

    Attributes:
        frames: an iterator, sync or async, of [H, W, 3]: uint8, uint16, or floats of 0..1. Of any size: they
            are scaled to cover the stream's frames, and cropped evenly. It is read in a thread of its own; an
            async one is asked in the event loop in which the stream was begun.
        fps: frames per second; None: as many as the stream has. Of a live source the clock decides.
        live: take the newest frames, and drop those that come too early or late. False: wait for every frame.
        at_end: "text": the stream goes on from its prompt alone. "stop": it ends with the source.

    Raises:
        ValueError: when a value is of another kind.
    """

    frames: AnyFrames = field(repr=False)
    fps: float | None = None
    live: bool = False
    at_end: AtEnd = "text"

    def __post_init__(self) -> None:
        frames: Any = self.frames
        if not (hasattr(frames, "__iter__") or hasattr(frames, "__aiter__")) or isinstance(frames, str):
            raise ValueError(
                f"source must be an iterator of frames, sync or async, got {type(frames).__name__}; "
                "pyrf.video.iter_frames and iter_camera give them"
            )
        if self.fps is not None and not (is_number(self.fps) and 0 < self.fps <= 1000):
            raise ValueError(f"fps of the source must lie above 0 and up to 1000, got {self.fps!r}")
        if self.at_end not in ("text", "stop"):
            raise ValueError(f'at_end must be "text" or "stop", got {self.at_end!r}')

    def open(self, model: StreamModel, height: int, width: int) -> Feed:
        """Begin to read."""
        if self.live:
            feed: InOrder | Newest = Newest(height, width, model.fps, model.frames_in_chunk)
        else:
            feed = InOrder(height, width, 1.0 if self.fps is None else model.fps / self.fps)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        pump(self.frames, feed, loop)
        return feed


def check_strength(strength: float) -> float:
    """A strength as it was given.

    Raises:
        ValueError: when it does not lie in 0..1.
    """
    if not is_number(strength) or not 0 <= strength <= 1:
        raise ValueError(
            f"strength must lie in 0..1, got {strength!r}; 0 shows the source, 1 the prompt alone"
        )
    return float(strength)


class SourceControl:
    """What the owner of a stream says of its source, from any thread.

    Attributes:
        strength: noise level that source frames are brought to.
        follows_motion: whether it is lowered where the source moves.
    """

    def __init__(self, strength: float, follows_motion: bool) -> None:
        self.strength, self.follows_motion = check_strength(strength), follows_motion
        self._lock = threading.Lock()
        self._feed: Feed | None = None
        self._at_end: AtEnd = "text"

    @property
    def current(self) -> tuple[Feed | None, AtEnd]:
        """Where frames come from, None: there are none; and what follows their end."""
        with self._lock:
            return self._feed, self._at_end

    def set(self, feed: Feed | None, at_end: AtEnd = "text") -> None:
        """Take another source, or none, from the next chunk on; the one before is let go."""
        with self._lock:
            last, self._feed, self._at_end = self._feed, feed, at_end
        if last is not None and last is not feed:
            last.close()

    def drop(self, feed: Feed) -> None:
        """Let a feed go that has ended, unless another has taken its place."""
        with self._lock:
            if self._feed is feed:
                self._feed = None
        feed.close()

    def after_fork(self) -> None:
        """Go on in the child of a fork, where no thread holds the lock."""
        self._lock = threading.Lock()


class SourceStart:
    """What each chunk of a stream starts from: its source's frames, where there is one, else noise alone
    (a `pyrf.loop.sampler.ChunkStart`).

    A source's latents x0 are mixed as ``strength * noise + (1 - strength) * x0`` (flow matching), which is
    what the student takes at timestep ``1000 * strength``. With `SourceControl.follows_motion` a chunk of
    motion m has the strength ``.9 (s - .1 m) + .1 l``, where s is the one that was asked for and l that of
    the chunk before (StreamDiffusionV2's noise scale).

    Args:
        model: whose codec encodes.
        control: what the owner says.
        device: of latents.
        begins: whether the stream continues nothing, so that its first chunk is the shorter one.

    Attributes:
        strength: of the chunk under way; None: it starts from noise alone.
    """

    def __init__(
        self, model: StreamModel, control: SourceControl, device: torch.device, *, begins: bool
    ) -> None:
        self._model, self._control, self._device = model, control, device
        self._is_first = begins
        self._feed: Feed | None = None
        self._encoder: StreamingEncoder | None = None
        self._last_frame: Frames | None = None
        self._last_strength: float | None = None
        self._motion = 0.0
        self.strength: float | None = None

    @property
    def has_source(self) -> bool:
        """Whether the next chunk asks for frames of a source."""
        return self._control.current[0] is not None

    def __call__(self, draw: Draw) -> tuple[Tensor, float]:
        """Start the next chunk.

        Raises:
            SourceEndedError: when the stream is to end with its source.
        """
        first, self._is_first = self._is_first, False
        latents = self._encoded(first)
        noise = draw()
        if latents is None:
            self.strength = None
            return noise, 1.0
        level = self.strength = self._level()
        sigma = torch.tensor(level, dtype=torch.float32, device="cpu")
        return add_noise(latents.to(noise).expand_as(noise), noise, sigma), level

    def _encoded(self, first: bool) -> Tensor | None:
        """The latents [1, F, C, h, w] of the source's next frames; None where there are none."""
        feed, at_end = self._control.current
        if feed is not self._feed:
            self._feed, self._encoder, self._last_frame, self._last_strength = feed, None, None, None
        if feed is None:
            return None
        try:
            frames = feed.take(self._model.num_frames_of(1) if first else self._model.frames_in_chunk)
        except FeedClosedError:  # for another source, or none
            self._control.drop(feed)
            return self._encoded(first)
        if frames is None:
            self._control.drop(feed)
            if at_end == "stop":
                raise SourceEndedError
            return self._encoded(first)
        self._note_motion(frames)
        images = torch.from_numpy(frames)[None].to(self._device)
        if self._encoder is None:
            self._encoder = self._model.codec.encoder()
            if not first:
                self._encoder.encode(images[:, :1])  # an encoder's first latent is of one frame
        return self._encoder.encode(images)

    def _note_motion(self, frames: Frames) -> None:
        """The largest change between neighbours, of which MOTION_FULL and more are 1."""
        if self._control.follows_motion:
            before = frames[:1] if self._last_frame is None else self._last_frame
            x = np.concatenate([before, frames]).astype(np.float32) / 127.5
            change = np.sqrt(np.square(np.diff(x, axis=0)).mean((1, 2, 3))).max()
            self._motion = min(1.0, float(change) / MOTION_FULL)
        self._last_frame = frames[-1:]

    def _level(self) -> float:
        asked = self._control.strength
        if not self._control.follows_motion:
            return asked
        last = asked if self._last_strength is None else self._last_strength
        self._last_strength = min(1.0, max(0.0, 0.9 * (asked - 0.1 * self._motion) + 0.1 * last))
        return self._last_strength
