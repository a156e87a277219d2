"""What a server tells of itself: the reply to `GET /v1/model`, and what admins see of a session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrf import __version__
from pyrf.config import StreamConfig
from pyrf.dtypes import name_of
from pyrf.protocol import AdminSession, Limits, ServerInfo, ShownPrompt, StreamInfo
from pyrf.serve.ice import parse_ice_server
from pyrf.serve.models import ServedModel
from pyrf.serve.settings import ServeSettings

if TYPE_CHECKING:
    from pyrf.serve.sessions.session import Session


def server_info(
    served: ServedModel, settings: ServeSettings, *, sessions: int, models: list[str]
) -> ServerInfo:
    """A model, its limits and the server's.

    Args:
        sessions: that are taken.
        models: names of all that there are.
    """
    pipe, card, s = served.pipe, served.pipe.card, settings
    return ServerInfo(
        version=__version__,
        model=served.name,
        models=models,
        backend=pipe.backend,
        device=str(pipe.device),
        dtype=name_of(pipe.dtype),
        precision=pipe.precision,
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
            max_pixels=served.max_pixels,
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
        adapters=served.adapters.shown(),
        adapters_live=served.adapters.are_live,
        ice_servers=[parse_ice_server(text) for text in s.ice_servers],
    )


def admin_session(session: Session) -> AdminSession:
    """A session as admins see it."""
    key = session.options.key
    return AdminSession(
        id=session.id,
        key=None if key is None else key.name,
        address=session.address,
        model=session.model,
        state=session.state,
        clip=session.options.is_clip,
        age_s=round(time.monotonic() - session.created, 3),
        viewers=session.viewers,
        frames_made=session.frames_made,
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
