"""A bundle with random weights and Wan's geometry of chunks: a stream from it takes milliseconds."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pyrf.bundle import save_bundle
from pyrf.config import ModelConfig, StreamConfig
from tests.support import networks

HEIGHT, WIDTH = 32, 48
TEXT_LEN = networks.MODEL.text_len


def save_random_bundle(
    path: Path, *, stream_config: StreamConfig | None = None, model_config: ModelConfig = networks.MODEL
) -> Path:
    """Write a random bundle to `path`, which must be new."""
    codec = networks.codec()
    codec.fps = 16.0
    last = codec.network.decoder[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.bias.data.fill_(0.5)  # mid-grey, so that few pixels clip
    return save_bundle(
        path,
        transformer=networks.dit(model_config),
        codec=codec,
        text_encoder=networks.text_encoder(),
        stream_config=stream_config or StreamConfig(),
        height=HEIGHT,
        width=WIDTH,
    )
