"""A bundle with random weights and Wan's geometry of chunks: a stream from it takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import small

from pyrf.bundle import save_bundle
from pyrf.config import StreamConfig

HEIGHT, WIDTH = 32, 48
TEXT_LEN = small.MODEL.text_len


def save_random_bundle(path: Path, *, stream_config: StreamConfig | None = None) -> Path:
    """Write a random bundle to `path`, which must be new."""
    codec = small.codec()
    codec.fps = 16.0
    codec.network.decoder[-1].bias.data.fill_(0.5)  # mid-grey, so that few pixels clip
    return save_bundle(
        path,
        transformer=small.dit(),
        codec=codec,
        text_encoder=small.text_encoder(),
        stream_config=stream_config or StreamConfig(),
        height=HEIGHT,
        width=WIDTH,
    )
