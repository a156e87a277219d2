"""What every backend offers: rollouts of streams, and decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.finite import check_finite
from pyrf.loop.held import Timestep
from pyrf.loop.sampler import ChunkLoop, ChunkStart, SeededNoise, from_noise
from pyrf.models.codecs.codec import StreamingDecoder


class Rollout(ABC):
    """Computes the calls of one stream, from `Backend.open`.

    A subclass puts the first prompt in force before its constructor returns.

    Args:
        model: sizes of the student.
        stream: how the stream is cut.
        batch: videos made together.
        size: of the latents.
        device: where latents are expected.

    Attributes:
        shape: of a chunk of one video, [F, C, H, W].
    """

    def __init__(
        self, model: ModelConfig, stream: StreamConfig, batch: int, size: LatentSize, device: torch.device
    ) -> None:
        self.model_config, self.stream, self.batch, self.device = model, stream, batch, device
        self.shape = (stream.chunk_frames, model.in_channels, *size)

    def loop(self, seeds: Sequence[int], start: ChunkStart = from_noise) -> ChunkLoop:
        """The stream's chunks, with noise of these seeds, one per video.

        Args:
            start: what a chunk starts from.

        Raises:
            ValueError: when the number of seeds is not the batch's.
        """
        if len(seeds) != self.batch:
            raise ValueError(f"seeds must be {self.batch}, one per video, got {len(seeds)}")
        return ChunkLoop(self, self.stream, SeededNoise(seeds, self.shape, self.device), start)

    @abstractmethod
    def set_prompt(self, prompt_embeds: Tensor, recache: bool = False) -> None:
        """Change the prompt, at a chunk's border: its cross-attention keys and values are made anew.

        Args:
            prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.
            recache: also compute the keys and values of the past chunks in the ring again under this
                prompt, oldest first, each seeing the sink and the ring's older chunks. Motion then
                follows the new prompt sooner. The sink, the memory of the stream's beginning, stays.

        Raises:
            RuntimeError: inside a chunk.
            ValueError: when the shape does not fit, or a value is not finite.
        """

    @abstractmethod
    def begin_chunk(self) -> None:
        """Make room for the next chunk; the one it overwrites goes into the sink.

        Raises:
            RuntimeError: inside a chunk.
        """

    @abstractmethod
    def denoise(self, latents: Tensor, timestep: Timestep) -> Tensor:
        """A denoise call of the current chunk.

        Args:
            latents: [B, F, C, H, W].
            timestep: in 0..1000, of all frames or of each.

        Returns:
            The flow, of the latents' shape.

        Raises:
            RuntimeError: outside a chunk.
            ValueError: when the shape does not fit the stream, or the frames have timesteps of their own and
                the backend computes one for all (`Backend.has_frame_timesteps`).
        """

    @abstractmethod
    def clean(self, latents: Tensor) -> None:
        """The clean call: write the chunk's keys and values for good, and end the chunk.

        Takes and raises what `denoise` does.
        """

    @abstractmethod
    def reopen_chunk(self) -> None:
        """Put the last chunk under way again, as `begin_chunk` left it, to make it under another prompt.

        Raises:
            RuntimeError: before the first chunk, or inside a chunk.
        """

    @abstractmethod
    def weights_changed(self) -> None:
        """Make anew, between chunks, what is kept of the network's work: its prompt and its times.

        The cache stays: what was shown is what the stream remembers.
        """

    def _check_latents(self, latents: Tensor) -> None:
        expected = (self.batch, *self.shape)
        if latents.shape != expected:
            raise ValueError(f"latents must be {list(expected)}, got {list(latents.shape)}")

    def _check_prompt(self, prompt_embeds: Tensor) -> None:
        if len(prompt_embeds) not in (1, self.batch):
            raise ValueError(f"prompt_embeds must hold 1 or {self.batch} prompts, got {len(prompt_embeds)}")
        if prompt_embeds.device.type == "cpu":  # a GPU is not waited for: the latents will show it
            check_finite("prompt_embeds", prompt_embeds)


class PendingFrames(Protocol):
    """Frames that are being decoded."""

    def result(self) -> Tensor:
        """Wait for them: uint8 [B, T, H, W, 3]."""
        ...


@runtime_checkable
class OverlappedDecoder(StreamingDecoder, Protocol):
    """A decoder that works while the network goes on with the next chunk.

    Its rollouts do not wait for the GPU either, and can make a chunk again (`Rollout.reopen_chunk`).
    """

    def begin(self, latents: Tensor) -> PendingFrames:
        """Give a chunk of latents [B, F, C, h, w] to the decoder."""
        ...


class Backend(Protocol):
    """A model loaded for one way to compute it; its streams share the weights.

    Attributes:
        has_frame_timesteps: whether the latent frames of a call may have timesteps of their own.
    """

    has_frame_timesteps: bool

    def check_size(self, size: LatentSize) -> None:
        """Refuse latents of a size that the backend has no graphs for and can make none.

        Raises:
            ValueError: naming the frame size in pixels that it has.
        """
        ...

    def is_ready(self, size: LatentSize) -> bool:
        """Whether streams of latents of this size begin at once, as nothing has to be exported for them."""
        ...

    def prepare(self, size: LatentSize) -> None:
        """Make a size ready, in whatever thread; streams of other sizes go on meanwhile.

        Raises:
            ValueError: when it cannot be made.
        """
        ...

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> Rollout:
        """Begin a stream; its memory is freed with the rollout.

        Args:
            batch: videos made together.
            size: of their latents.
            prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.

        Raises:
            ValueError: when a size is not one the backend takes, or the shape does not fit.
        """
        ...

    def decoder(self, batch: int, size: LatentSize) -> StreamingDecoder:
        """The decoder of a stream of latents of this size."""
        ...
