"""What all streams of a pipeline share, and what follows from it for frames and chunks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from pyrf.backends.base import Backend
from pyrf.backends.torch.backend import TorchBackend
from pyrf.bundle.card import Card
from pyrf.checks import check_whole
from pyrf.config import LatentSize, StreamConfig
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.models.text.encoder import TextEncoder, clean_prompt
from pyrf.printing import counted
from pyrf.streaming.adapters import LiveAdapters
from pyrf.streaming.notices import prompt_notices, size_notices, unknown_words
from pyrf.streaming.times import ChunkTimes


@dataclass(frozen=True)
class StreamModel:
    """A loaded model, ready to stream.

    Attributes:
        text_encoder, codec: loaded.
        backend: who computes the network's calls.
        stream_config: how streams are cut into chunks.
        device: of network, cache and codec.
        height, width: of a frame in pixels, unless a stream asks for others.
        card: what the model knows.
        adapters: changes of the network's weights.
    """

    text_encoder: TextEncoder
    codec: Codec
    backend: Backend
    stream_config: StreamConfig
    device: torch.device
    height: int
    width: int
    card: Card = field(default_factory=Card)
    adapters: LiveAdapters = field(default_factory=LiveAdapters)

    def __repr__(self) -> str:
        return (
            f"<StreamModel: {self.height} x {self.width} at {self.fps:g} fps, "
            f"{type(self.backend).__name__} on {self.device}>"
        )

    @property
    def fps(self) -> float:
        """Frames per second of what it makes."""
        return self.codec.fps

    @property
    def survives_fork(self) -> bool:
        """Whether a stream that has begun may go on in the child of a fork: plain memory is copied, but
        neither a GPU's nor the threads that ONNX Runtime has."""
        return isinstance(self.backend, TorchBackend) and self.device.type == "cpu"

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
                f"the prompt has {counted(len(text.split()), 'word')}, which is more than the "
                f"{counted(self.text_encoder.text_len, 'token')} that this model reads; shorten it"
            )

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """The words that the model has not learned, see `pyrf.streaming.notices.unknown_words`."""
        return unknown_words(self.card, self.text_encoder, prompt)

    def notices(self, *prompts: str, height: int | None = None, width: int | None = None) -> list[str]:
        """What a person should be told of good prompts, each once, and of a size of frames."""
        found = [n for p in dict.fromkeys(prompts) for n in prompt_notices(self.card, self.text_encoder, p)]
        if height is not None or width is not None:
            found += size_notices(self.card, height or self.height, width or self.width)
        return found

    def check_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """The size of a frame in pixels, the model's where not given.

        Raises:
            ValueError: when it does not split into the network's patches, is too large, or is not that of
                an exported folder.
        """
        height = self.height if height is None else check_whole("height", height, least=None, most=None)
        width = self.width if width is None else check_whole("width", width, least=None, most=None)
        self.backend.check_size(self.latent_size(height, width))
        return height, width

    def latent_size(self, height: int, width: int) -> LatentSize:
        """The size of the latents of frames of a size in pixels.

        Raises:
            ValueError: when it does not split into the network's patches, or is too large.
        """
        return latent_size(height, width, self.codec)

    @property
    def times(self) -> ChunkTimes:
        """When chunks start."""
        return ChunkTimes(self.fps, self.stream_config.chunk_frames, self.codec.temporal_stride)

    def num_frames_of(self, chunks: int) -> int:
        """Frames that the first `chunks` chunks of a stream have."""
        return self.times.num_frames_of(chunks)

    def num_chunks_of(self, num_frames: int) -> int:
        """Chunks that a stream needs for its first `num_frames` frames."""
        return self.chunk_of_frame(num_frames)

    @property
    def frames_in_chunk(self) -> int:
        """Frames of every chunk but the first of a stream that continues nothing, which is shorter."""
        return self.times.frames_in_chunk

    def start_of_chunk(self, chunk: int, *, continues: bool = False) -> int:
        """The frame at which a chunk starts, see `ChunkTimes.start_of_chunk`."""
        return self.times.start_of_chunk(chunk, continues=continues)

    def chunk_of_frame(self, frame: float, *, continues: bool = False) -> int:
        """The first chunk that starts at a frame or later, see `ChunkTimes.chunk_of_frame`."""
        return self.times.chunk_of_frame(frame, continues=continues)
