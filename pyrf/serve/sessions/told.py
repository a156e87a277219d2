"""What a server tells of how its streams are made."""

from __future__ import annotations

from pyrf.config import StreamConfig
from pyrf.protocol import StreamInfo


def stream_info(preset: str | None, stream: StreamConfig) -> StreamInfo:
    """How streams are made, for `GET /v1/model`.

    Args:
        preset: name of the published student that was asked for, if one was.
        stream: how they are cut into chunks.
    """
    first = stream.first_chunk_steps
    return StreamInfo(
        preset=preset,
        latent_frames=stream.chunk_frames,
        window_frames=stream.window_frames,
        sink_frames=stream.sink_frames,
        sink_alpha=stream.sink_alpha,
        steps=list(stream.denoising_steps),
        first_chunk_steps=None if first is None else list(first),
        shift=stream.shift,
        sampler=stream.sampler,
    )
