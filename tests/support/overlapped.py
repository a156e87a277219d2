"""A decoder that lets the next chunk begin before it is asked for its frames, as TensorRT's does."""

from __future__ import annotations

import pytest
from torch import Tensor

from pyrf.models.codecs.codec import StreamingDecoder
from pyrf.pipeline import StreamingPipeline


class LateDecoder:
    """Decodes when the frames are waited for."""

    def __init__(self, decoder: StreamingDecoder) -> None:
        self._decoder = decoder

    def decode(self, latents: Tensor) -> Tensor:
        return self._decoder.decode(latents)

    def begin(self, latents: Tensor) -> LateFrames:
        return LateFrames(self._decoder, latents)


class LateFrames:
    def __init__(self, decoder: StreamingDecoder, latents: Tensor) -> None:
        self._decoder, self._latents = decoder, latents

    def result(self) -> Tensor:
        return self._decoder.decode(self._latents)


def overlap_decoders(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pipeline's new streams begin a chunk while they decode the one before."""
    backend = pipe.model.backend
    make = backend.decoder
    monkeypatch.setattr(backend, "decoder", lambda *sizes: LateDecoder(make(*sizes)))
