"""What a server tells of itself: the reply to `GET /v1/model`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrf import __version__
from pyrf.config import StreamConfig
from pyrf.dtypes import name_of
from pyrf.protocol import Limits, ServerInfo, ShownPrompt, StreamInfo
from pyrf.serve.ice import parse_ice_server
from pyrf.serve.sessions.adapters import ServedAdapters
from pyrf.serve.settings import ServeSettings

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline


def server_info(
    pipe: StreamingPipeline,
    model: str,
    settings: ServeSettings,
    adapters: ServedAdapters,
    sessions: int,
    max_pixels: int,
) -> ServerInfo:
    """The model, its limits and the server's.

    Args:
        model: its name, for people.
        sessions: that are taken.
        max_pixels: of a frame.
    """
    card, s = pipe.card, settings
    return ServerInfo(
        version=__version__,
        model=model,
        backend=pipe.backend,
        device=str(pipe.device),
        dtype=name_of(pipe.dtype),
        fps=pipe.fps,
        height=pipe.height,
        width=pipe.width,
        frames_in_chunk=pipe.model.frames_in_chunk,
        sessions=sessions,
        limits=Limits(
            max_sessions=s.max_sessions,
            max_session_s=s.max_session_s,
            max_video_frames=s.max_video_frames,
            max_prompt_chars=s.max_prompt_chars,
            max_pixels=max_pixels,
            grace_s=s.grace_s,
            max_source_bytes=s.max_source_bytes,
            source_frames_per_second=s.source_frames_per_second,
            max_image_bytes=s.max_image_bytes,
        ),
        stream=stream_info(pipe.choice.preset, pipe.stream_config),
        webrtc=s.webrtc,
        vocabulary=list(card.vocabulary),
        unlearned=list(card.unlearned),
        sizes=list(card.sizes),
        model_limits=list(card.limits),
        choices={name: list(phrases) for name, phrases in card.choices.items()},
        gallery=[ShownPrompt(prompt=one.prompt, seed=one.seed) for one in card.gallery],
        adapters=adapters.shown(),
        adapters_live=adapters.are_live,
        ice_servers=[parse_ice_server(text) for text in s.ice_servers],
    )


def stream_info(preset: str | None, stream: StreamConfig) -> StreamInfo:
    """How streams are made.

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
