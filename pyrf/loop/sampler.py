"""The chunk loop: a few denoise calls and one clean call a chunk; the same for inference and training.

A denoise call predicts clean latents; between calls fresh noise is added at the next, lower level.
The clean call, at timestep 0, then writes the keys and values that later chunks will see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.rope import ChunkRope, rope_table
from pyrf.loop.schedule import FlowSchedule, add_noise, to_x0
from pyrf.models.dit.attention import Attention, CachedAttention, PrefixAttention
from pyrf.models.dit.model import PromptCache, WanModel

Predict = Callable[[Tensor, float], Tensor]
"""Noisy latents [B, F, C, H, W] and a timestep to the flow."""
Draw = Callable[[], Tensor]
"""Fresh Gaussian noise for a chunk, [B, F, C, H, W]."""


class FewStepSampler:
    """The denoise calls of one chunk.

    Args:
        stream: its denoising steps and shift.

    Attributes:
        timesteps: of the calls, warped, falling.
    """

    def __init__(self, stream: StreamConfig) -> None:
        schedule = FlowSchedule(stream.shift)
        warped = schedule.warp(stream.denoising_steps)
        self.timesteps: list[float] = warped.tolist()
        self._sigmas = schedule.sigma(warped)

    def noisy(self, predict: Predict, noise: Tensor, draw: Draw, step: int) -> Tensor:
        """Run the calls before ``step``, from pure noise: the latents that call ``step`` takes."""
        x = noise
        for i in range(step):
            x = add_noise(self.x0(predict, x, i), draw(), self._sigmas[i + 1])
        return x

    def x0(self, predict: Predict, x: Tensor, step: int) -> Tensor:
        """Call ``step``: noisy latents to predicted clean ones."""
        return to_x0(x, predict(x, self.timesteps[step]), self._sigmas[step])

    def sample(self, predict: Predict, noise: Tensor, draw: Draw) -> Tensor:
        """All calls: noise [B, F, C, H, W] to clean latents."""
        last = len(self.timesteps) - 1
        return self.x0(predict, self.noisy(predict, noise, draw, last), last)


class SeededNoise:
    """Noise by seed, the same on every device and in every batch.

    Args:
        seeds: one a video. Each has its own generator, on the CPU.
        shape: of one video's draw, [F, C, H, W].
        device: where draws go.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = tuple(shape), device

    def __call__(self) -> Tensor:
        """The next draw, [B, F, C, H, W] float32."""
        noise = torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])
        if torch.device(self.device).type == "cuda":
            noise = noise.pin_memory()  # else the copy waits for all that the GPU was given before
        return noise.to(self.device, non_blocking=True)


class ChunkCalls(Protocol):
    """Who computes the calls of a stream."""

    def begin_chunk(self) -> None:
        """Make room for the next chunk."""
        ...

    def denoise(self, latents: Tensor, timestep: float) -> Tensor:
        """A denoise call of the current chunk: its flow, [B, F, C, H, W]."""
        ...

    def clean(self, latents: Tensor) -> None:
        """The clean call: write the chunk's keys and values for good, and end the chunk."""
        ...

    def reopen_chunk(self) -> None:
        """Put the last chunk under way again, as `begin_chunk` left it."""
        ...


class ChunkLoop:
    """An endless stream of latent chunks.

    Args:
        backend: already started, its prompt set.
        stream: how the stream is cut.
        draw: noise, usually a `SeededNoise`; a chunk draws first its start, then once between calls.
    """

    def __init__(self, backend: ChunkCalls, stream: StreamConfig, draw: Draw) -> None:
        self.backend, self.stream, self.draw = backend, stream, draw
        self.sampler = FewStepSampler(stream)
        self._drawn: list[Tensor] = []

    def next_chunk(self) -> Tensor:
        """Make the next chunk: clean latents [B, F, C, H, W] float32."""
        self.backend.begin_chunk()
        self._drawn = []
        return self._compute(self._fresh)

    def redo_chunk(self) -> Tensor:
        """Make the last chunk again from the same noise: the prompt has changed since."""
        self.backend.reopen_chunk()
        return self._compute(iter(self._drawn).__next__)

    def _compute(self, draw: Draw) -> Tensor:
        latents = self.sampler.sample(self.backend.denoise, draw(), draw)
        self.backend.clean(latents)
        return latents

    def _fresh(self) -> Tensor:
        self._drawn.append(self.draw())
        return self._drawn[-1]

    def prefill(self, latents: Tensor) -> None:
        """Begin (or go on) with given clean latents, as from an encoded image or video.

        Args:
            latents: [B, n * chunk_frames, C, H, W].

        Raises:
            ValueError: when the frames do not fill whole chunks.
        """
        frames = self.stream.chunk_frames
        if latents.ndim != 5 or latents.shape[1] == 0 or latents.shape[1] % frames:
            raise ValueError(
                f"given latents must be [B, F, C, H, W] with F a multiple of {frames}, "
                f"got {list(latents.shape)}"
            )
        for chunk in latents.split(frames, 1):
            self.backend.begin_chunk()
            self.backend.clean(chunk)


class TrainingRollout:
    """A stream in training: the loop, cache, evictions and sink of inference, with a gradient.

    Of each chunk only one call carries the gradient, and only through the chunk itself: what it sees
    of earlier chunks is a constant copy, so that checkpointing may read it again later.

    Args:
        model: the student.
        stream: how the stream is cut.
        prompt: from ``model.encode_prompt``; its gradient, if any, is kept.
        size: of the latents.
        checkpointing: compute the call with the gradient again in the backward, to save memory.
    """

    def __init__(
        self,
        model: WanModel,
        stream: StreamConfig,
        prompt: PromptCache,
        *,
        size: LatentSize,
        checkpointing: bool = False,
    ) -> None:
        self.model, self.prompt, self.checkpointing = model, prompt, checkpointing
        self.batch = prompt.keys[0].shape[0]
        # Of computation: a sharded model's weights may be kept in another dtype.
        dtype, device = prompt.keys[0].dtype, prompt.keys[0].device
        self.sampler = FewStepSampler(stream)
        self.cache = SinkRingCache(
            model.config,
            stream,
            batch=self.batch,
            size=size,
            dtype=dtype,
            device=device,
        )
        self.size = size
        self.attention = CachedAttention(
            self.cache, ChunkRope(model.config, size, dtype=dtype, device=device)
        )

    def _predict(self, attention: Attention) -> Predict:
        def predict(x: Tensor, timestep: float) -> Tensor:
            timesteps = torch.full((self.batch,), timestep, device=x.device)
            return self.model(x, timesteps, self.prompt, attention=attention)

        return predict

    def _rope(self) -> Tensor:
        """The chunk's rotations in memory of their own, which the backward reads again."""
        positions, cache = self.cache.frame_positions, self.cache.keys[0]
        return rope_table(self.model.config, positions, self.size, dtype=cache.dtype, device=cache.device)

    def next_chunk(self, draw: Draw, exit_step: int) -> Tensor:
        """Roll one chunk out and stop after call ``exit_step``, the one that carries the gradient.

        Args:
            draw: noise, [B, F, C, H, W] a draw.
            exit_step: 0 .. calls - 1; the last is inference's.

        Returns:
            The clean latents that call predicts, [B, F, C, H, W].

        Raises:
            ValueError: when there is no such step.
        """
        steps = len(self.sampler.timesteps)
        if not 0 <= exit_step < steps:
            raise ValueError(f"exit_step must lie in 0..{steps - 1}, got {exit_step}")
        differentiable = torch.is_grad_enabled()
        with torch.no_grad():
            self.cache.begin_chunk()
            predict = self._predict(self.attention)
            x = self.sampler.noisy(predict, draw(), draw, exit_step)
            if differentiable:
                predict = self._predict(PrefixAttention(self._rope(), self.cache.snapshot()))
        if self.checkpointing:
            x0 = checkpoint(self.sampler.x0, predict, x, exit_step, use_reentrant=False)
        else:
            x0 = self.sampler.x0(predict, x, exit_step)
        with torch.no_grad():
            self.model.write_cache(
                x0.detach(),
                torch.zeros(self.batch, device=x0.device),
                self.prompt,
                attention=self.attention,
            )
            self.cache.commit()
        return x0
