"""The chunk loop: a few denoise calls and one clean call per chunk; the same for every backend.

A denoise call predicts clean latents; between calls fresh noise is added at the next, lower level, or
UniPC goes there without.
The clean call, at timestep 0, then writes the keys and values that later chunks will see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.loop.finite import check_finite
from pyrf.loop.held import HeldFrames, Timestep
from pyrf.loop.noise import gauss
from pyrf.loop.schedule import TIMESTEPS, FlowSchedule, add_noise, to_x0
from pyrf.loop.unipc import HIGHEST_SIGMA, UniPC

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
        stream: its denoising steps, shift and sampler.
        first: it is a stream's first chunk, which may have steps of its own.
        level: noise level of the latents that it starts from. Below the first step's it is that of the first
            call, and those steps follow that are below it: nothing is made noisier than it came. Latents of
            level 0 are clean and need no call.

    Attributes:
        timesteps: of the calls, warped, falling.
        sigmas: their noise levels.

    Raises:
        ValueError: when the shift leaves UniPC no room between the steps.
    """

    def __init__(self, stream: StreamConfig, *, first: bool = False, level: float = 1.0) -> None:
        schedule = FlowSchedule(stream.shift)
        warped = schedule.listed((first and stream.first_chunk_steps) or stream.denoising_steps)
        sigmas = schedule.sigma(warped)
        start = torch.tensor([level], dtype=sigmas.dtype, device="cpu")
        if start < sigmas[0]:
            own, below = start[start > 0], sigmas < start
            warped, sigmas = torch.cat([own * TIMESTEPS, warped[below]]), torch.cat([own, sigmas[below]])
        self.timesteps: list[float] = warped.tolist()
        self._deterministic = stream.sampler == "unipc"
        if self._deterministic:
            sigmas = sigmas.clamp(max=HIGHEST_SIGMA)
            if bool((sigmas.diff() >= 0).any()):
                raise ValueError(f"shift {stream.shift:g} leaves unipc no room between the steps; lower it")
        self.sigmas = sigmas

    def noisy(self, predict: Predict, latents: Tensor, draw: Draw, step: int) -> Tensor:
        """Run the calls before ``step`` on latents as noisy as call 0 takes them.

        Returns:
            The latents that call ``step`` takes.
        """
        solver = UniPC(self.sigmas.tolist()) if self._deterministic else None
        for i in range(step):
            x0 = self.x0(predict, latents, i)
            if solver is None:
                latents = add_noise(x0, draw(), self.sigmas[i + 1])
            else:
                latents = solver.step(i, latents, x0)
        return latents

    def x0(self, predict: Predict, latents: Tensor, step: int) -> Tensor:
        """Call ``step``: noisy latents to predicted clean ones."""
        return to_x0(latents, predict(latents, self.timesteps[step]), self.sigmas[step])

    def sample(self, predict: Predict, latents: Tensor, draw: Draw) -> Tensor:
        """All calls: latents as noisy as call 0 takes them to clean ones."""
        last = len(self.timesteps) - 1
        return self.x0(predict, self.noisy(predict, latents, draw, last), last) if self.timesteps else latents


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
    """What a chunk starts from. `from_noise` is text to video; given frames make video to video."""

    def __call__(self, draw: Draw) -> tuple[Tensor, float]:
        """Start the next chunk.

        Args:
            draw: the stream's noise.

        Returns:
            Latents [B, F, C, H, W], and their noise level: 1 for noise alone.
        """
        ...


def from_noise(draw: Draw) -> tuple[Tensor, float]:
    """Start from noise alone (a `ChunkStart`)."""
    return draw(), 1.0


@dataclass(frozen=True)
class Started:
    """What a chunk starts from, [B, F, C, H, W], its noise level, and the calls that follow."""

    latents: Tensor
    level: float
    sampler: FewStepSampler


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
        self._next: Started | None = None
        self._started: Started | None = None
        self._drawn: list[Tensor] = []

    def sampler(self, chunk: int, level: float = 1.0) -> FewStepSampler:
        """Of the chunk of this number, from 0, that starts from latents of a noise level."""
        if level < 1:
            return FewStepSampler(self.stream, first=not chunk, level=level)
        return self._later if chunk else self._first

    def begin(self) -> Started:
        """What the next chunk starts from. It is asked for once, here or in `next_chunk`."""
        if self._next is None:
            latents, level = self.start(self.draw)
            self._next = Started(latents, level, self.sampler(self.chunks, level))
        return self._next

    def next_chunk(self, watch: Watch = _unwatched) -> Tensor:
        """Make the next chunk: clean latents [B, F, C, H, W] float32."""
        self._started, self._drawn = self.begin(), []
        self.calls.begin_chunk()
        self._held, self.to_hold = self.to_hold, None
        self.pass_on()
        return self._compute(self._started, self._fresh, watch)

    def pass_on(self) -> None:
        """The chunk that `begin` told of is under way, here or in a loop of several streams."""
        self._next = None
        self.chunks += 1

    def redo_chunk(self, watch: Watch = _unwatched) -> Tensor:
        """Make the last chunk again from the same start and noise: the prompt has changed since.

        Raises:
            RuntimeError: when there is none yet.
        """
        self.calls.reopen_chunk()
        if self._started is None:
            raise RuntimeError("redo_chunk() comes after next_chunk()")
        return self._compute(self._started, iter(self._drawn).__next__, watch)

    def _compute(self, started: Started, draw: Draw, watch: Watch) -> Tensor:
        held, clean = self._held, started.latents

        def predict(noisy: Tensor, timestep: float) -> Tensor:
            watch("denoise")
            if held is not None:
                return self.calls.denoise(held.over(noisy), held.timesteps(timestep))
            return self.calls.denoise(noisy, timestep)

        if held is None or not held.is_whole:
            clean = started.sampler.sample(predict, clean, draw)
        if held is not None:
            clean = held.over(clean)
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
