"""The chunk loop: a few denoise calls and one clean call per chunk; the same for every backend.

A denoise call predicts clean latents; between calls fresh noise is added at the next, lower level.
The clean call, at timestep 0, then writes the keys and values that later chunks will see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.loop.finite import check_finite
from pyrf.loop.held import HeldFrames, Timestep
from pyrf.loop.noise import gauss
from pyrf.loop.schedule import FlowSchedule, add_noise, to_x0

Predict = Callable[[Tensor, float], Tensor]
"""Noisy latents [B, F, C, H, W] and a timestep to the flow."""
Draw = Callable[[], Tensor]
"""Fresh Gaussian noise for a chunk, [B, F, C, H, W]."""
Call = Literal["denoise", "clean"]
"""A kind of network call."""
Watch = Callable[[Call], None]
"""Called before each call of a chunk; what it raises gives the chunk up."""


class FewStepSampler:
    """The denoise calls of one chunk.

    Args:
        stream: its denoising steps and shift.
        first: it is a stream's first chunk, which may have steps of its own.

    Attributes:
        timesteps: of the calls, warped, falling.
    """

    def __init__(self, stream: StreamConfig, *, first: bool = False) -> None:
        schedule = FlowSchedule(stream.shift)
        warped = schedule.listed((first and stream.first_chunk_steps) or stream.denoising_steps)
        self.timesteps: list[float] = warped.tolist()
        self.sigmas = schedule.sigma(warped)

    def noisy(self, predict: Predict, latents: Tensor, draw: Draw, step: int, first: int = 0) -> Tensor:
        """Run the calls ``first`` .. ``step - 1``.

        Args:
            latents: as noisy as call ``first`` takes them; call 0 takes pure noise.

        Returns:
            The latents that call ``step`` takes.
        """
        for i in range(first, step):
            latents = add_noise(self.x0(predict, latents, i), draw(), self.sigmas[i + 1])
        return latents

    def x0(self, predict: Predict, latents: Tensor, step: int) -> Tensor:
        """Call ``step``: noisy latents to predicted clean ones."""
        return to_x0(latents, predict(latents, self.timesteps[step]), self.sigmas[step])

    def sample(self, predict: Predict, latents: Tensor, draw: Draw, first: int = 0) -> Tensor:
        """All calls from ``first`` on: latents as noisy as that call takes them to clean ones."""
        last = len(self.timesteps) - 1
        return self.x0(predict, self.noisy(predict, latents, draw, last, first), last)


class SeededNoise:
    """Noise by seed, the same on every device and in every batch.

    Args:
        seeds: one per video. Each has its own generator, on the CPU.
        shape: of one video's draw, [F, C, H, W].
        device: where draws go.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self.shape, self.device = tuple(shape), device

    def __call__(self) -> Tensor:
        """The next draw, [B, F, C, H, W] float32."""
        noise = torch.stack([gauss(self.shape, g) for g in self.generators])
        if torch.device(self.device).type == "cuda":
            noise = noise.pin_memory()  # else the copy waits for all that the GPU was given before
        return noise.to(self.device, non_blocking=True)


class ChunkStart(Protocol):
    """What a chunk starts from. `from_noise` is text to video; given frames would make video to video."""

    def __call__(self, draw: Draw) -> tuple[Tensor, int]:
        """Start the next chunk.

        Args:
            draw: the stream's noise.

        Returns:
            Latents [B, F, C, H, W], and the denoise call that takes latents as noisy as these.
        """
        ...


def from_noise(draw: Draw) -> tuple[Tensor, int]:
    """Start from noise alone, at the first call (a `ChunkStart`)."""
    return draw(), 0


class ChunkCalls(Protocol):
    """Who computes the calls of a stream."""

    def begin_chunk(self) -> None:
        """Make room for the next chunk."""
        ...

    def denoise(self, latents: Tensor, timestep: Timestep) -> Tensor:
        """A denoise call of the current chunk: its flow, [B, F, C, H, W]."""
        ...

    def clean(self, latents: Tensor) -> None:
        """The clean call: write the chunk's keys and values for good, and end the chunk."""
        ...

    def reopen_chunk(self) -> None:
        """Put the last chunk under way again, as `begin_chunk` left it."""
        ...


def _unwatched(_: Call) -> None:
    """Nobody watches the calls."""


class ChunkLoop:
    """An endless stream of latent chunks.

    Args:
        calls: who computes them.
        stream: how the stream is cut.
        draw: noise, usually a `SeededNoise`; a chunk draws first its start, then once between calls.
        start: what a chunk starts from.
        past: chunks that the stream has already.

    Attributes:
        chunks: that the stream has, those under way and given ones included.
        to_hold: latent frames that the next chunk is given, see `hold`.
    """

    def __init__(
        self,
        calls: ChunkCalls,
        stream: StreamConfig,
        draw: Draw,
        start: ChunkStart = from_noise,
        past: int = 0,
    ) -> None:
        self.calls, self.stream, self.draw, self.start, self.chunks = calls, stream, draw, start, past
        self._first, self._later = FewStepSampler(stream, first=True), FewStepSampler(stream)
        self.to_hold: HeldFrames | None = None
        self._held: HeldFrames | None = None
        self._started: tuple[Tensor, int] | None = None
        self._drawn: list[Tensor] = []

    def sampler(self, chunk: int) -> FewStepSampler:
        """Of the chunk of this number, from 0."""
        return self._later if chunk else self._first

    def next_chunk(self, watch: Watch = _unwatched) -> Tensor:
        """Make the next chunk: clean latents [B, F, C, H, W] float32."""
        self.calls.begin_chunk()
        self._held, self.to_hold = self.to_hold, None
        self.chunks += 1
        self._started, self._drawn = self.start(self.draw), []
        return self._compute(*self._started, self._fresh, watch)

    def redo_chunk(self, watch: Watch = _unwatched) -> Tensor:
        """Make the last chunk again from the same start and noise: the prompt has changed since.

        Raises:
            RuntimeError: when there is none yet.
        """
        self.calls.reopen_chunk()
        if self._started is None:
            raise RuntimeError("redo_chunk() comes after next_chunk()")
        return self._compute(*self._started, iter(self._drawn).__next__, watch)

    def _compute(self, latents: Tensor, first: int, draw: Draw, watch: Watch) -> Tensor:
        held = self._held

        def predict(noisy: Tensor, timestep: float) -> Tensor:
            watch("denoise")
            if held is not None:
                return self.calls.denoise(held.over(noisy), held.timesteps(timestep))
            return self.calls.denoise(noisy, timestep)

        if held is None or not held.is_whole:
            latents = self.sampler(self.chunks - 1).sample(predict, latents, draw, first)
        clean = latents if held is None else held.over(latents)
        watch("clean")
        self.calls.clean(clean)
        return clean

    def _fresh(self) -> Tensor:
        self._drawn.append(self.draw())
        return self._drawn[-1]

    def hold(self, latents: Tensor) -> None:
        """Let the next chunk begin with given clean latents, at timestep 0 in each of its calls.

        Args:
            latents: [B, n, C, H, W]; with n = chunk_frames nothing of the chunk is denoised.

        Raises:
            ValueError: when the frames do not fit the chunk, or a value is not finite.
        """
        self.to_hold = HeldFrames(latents, self.stream.chunk_frames)

    def prefill(self, latents: Tensor) -> None:
        """Begin (or go on) with given clean latents, as from an encoded image or video.

        Args:
            latents: [B, n * chunk_frames, C, H, W].

        Raises:
            ValueError: when the frames do not fill whole chunks, or a value is not finite.
        """
        frames = self.stream.chunk_frames
        if latents.ndim != 5 or latents.shape[1] == 0 or latents.shape[1] % frames:
            raise ValueError(
                f"given latents must be [B, F, C, H, W] with F a multiple of {frames}, "
                f"got {list(latents.shape)}"
            )
        check_finite("given latents", latents)
        for chunk in latents.split(frames, 1):
            self.calls.begin_chunk()
            self.calls.clean(chunk)
            self.chunks += 1
