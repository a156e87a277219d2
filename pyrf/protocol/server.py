"""What a server says of itself and of its models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pyrf.protocol.adapters import ServedAdapter
from pyrf.protocol.terms import Reply


class Limits(Reply):
    max_sessions: int
    max_session_s: float
    max_video_frames: int
    max_prompt_chars: int
    max_pixels: int
    grace_s: float
    max_source_bytes: int = Field(262_144, description="Of a JPEG of the viewer's own video.")
    source_frames_per_second: float = Field(30.0, description="Of the viewer's own video; others are lost.")
    max_image_bytes: int = Field(0, description="Of the file of an image to start from.")


class IceServer(Reply):
    """A STUN or TURN server for WebRTC, in the form that a browser's `RTCPeerConnection` takes."""

    urls: str
    username: str | None = None
    credential: str | None = Field(default=None, repr=False)


class ShownPrompt(Reply):
    """A prompt and a seed that show well together."""

    prompt: str
    seed: int


class StreamInfo(Reply):
    """How all streams of a server are made; a session cannot change it. Lengths are in latent frames."""

    preset: str | None = Field(None, description="The published student that was named at the start, if any.")
    latent_frames: int = Field(description="Of a chunk.")
    window_frames: int = Field(description="That a chunk sees, the sink and itself included.")
    sink_frames: int
    sink_alpha: float = Field(description="Share of the sink that stays when a chunk leaves the window.")
    steps: list[int] = Field(description="The denoise calls of a chunk: timesteps before the shift.")
    first_chunk_steps: list[int] | None = Field(None, description="Those of the first chunk, if others.")
    shift: float
    sampler: str = Field(description="What happens between calls: renoise or unipc.")


class ServerInfo(Reply):
    """What is served, from `GET /v1/model`."""

    version: str
    model: str
    models: list[str] = Field(
        default=[], description="Names of all models of the server, the default one first."
    )
    backend: str
    device: str
    dtype: str
    precision: str | None = Field(
        None, description="What is computed in fewer bits than the dtype's, such as fp8-attention."
    )
    fps: float
    height: int
    width: int
    frames_in_chunk: Annotated[
        int, Field(alias="chunk_frames", description="Frames of a chunk; the first chunk has fewer.")
    ]
    sessions: int
    limits: Limits
    stream: StreamInfo | None = Field(None, description="How streams are made; older servers do not say.")
    webrtc: bool = Field(True, description="Whether video goes over WebRTC too.")
    vocabulary: list[str] = Field(
        default=[], description="Words that the model has learned; empty: it does not say."
    )
    unlearned: list[str] = Field(default=[], description="Words that it reads and has not learned.")
    sizes: list[tuple[int, int]] = Field(
        default=[], description="Height and width of the frames that it was trained on; empty: any."
    )
    model_limits: list[str] = Field(
        default=[], description="What the model cannot do, in sentences for people."
    )
    choices: dict[str, list[str]] = Field(
        default={}, description="Phrases for a prompt by the name of their group, one of a group at a time."
    )
    gallery: list[ShownPrompt] = Field(default=[], description="Prompts that show well, with their seeds.")
    adapters: list[ServedAdapter] = Field(
        default=[], description="Of the model (LoRA), with their strengths."
    )
    adapters_live: bool = Field(False, description="Whether a session may change their strengths.")
    ice_servers: list[IceServer] = Field(default=[], description="For WebRTC beyond the local network.")


class ModelSummary(Reply):
    """A model that sessions and clips may choose.

    Attributes:
        height, width: of a frame in pixels, unless a session asks for another.
    """

    name: str
    default: bool = Field(description="Whether it is for whoever names none.")
    fps: float
    height: int
    width: int
    sizes: list[tuple[int, int]] = Field(
        default=[], description="Height and width of the frames that it was trained on; empty: any."
    )
    words: int = Field(0, description="Number of words that it has learned; 0: it does not say.")
    choices: list[str] = Field(default=[], description="Names of its groups of phrases.")
    model_limits: list[str] = Field(default=[], description="What it cannot do, in sentences for people.")


class ModelList(Reply):
    """Reply to `GET /v1/models`, the default model first."""

    models: list[ModelSummary]
