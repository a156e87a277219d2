"""Bodies of HTTP requests and of their replies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pyrf.config import MAX_SEED, Fit, StartKind
from pyrf.protocol.adapters import ServedAdapter
from pyrf.protocol.prompts import MAX_CHANGES, Over, TimelineEntry, WirePrompt
from pyrf.protocol.terms import OutputState, Pace, Reply, Request, State

MAX_SDP = 32_768
"""Characters of an offer; browsers that list every codec they have send some 10,000."""
MAX_TARGET = 2000
"""Characters of where an output goes."""


ModelName = Annotated[
    str | None, Field(description="One that `GET /v1/models` lists; by default the server's first.")
]


class ImageStart(Request):
    """An image that a stream begins with, if it has one."""

    image: str | None = Field(
        None, repr=False, description="To start from: a JPEG, PNG or WebP file in base64."
    )
    start: StartKind | None = Field(
        None,
        description="still: continue the image, as if it had stood still until now. first_frame: show it as "
        "the first frame. By default what the server can do best.",
    )
    fit: Fit = Field("crop", description="What becomes of an image of another size.")


class SessionRequest(ImageStart):
    """Body of `POST /v1/sessions`."""

    prompt: WirePrompt
    model: ModelName = None
    seed: int = Field(0, ge=0, le=MAX_SEED)
    height: int | None = Field(None, description="Of a frame in pixels; by default the model's.")
    width: int | None = Field(None, description="Of a frame in pixels; by default the model's.")
    pace: Pace = Field(
        "realtime",
        description="realtime: as fast as it is played, a slow viewer loses the oldest chunks. "
        "max: as fast as it can be made and read, nothing is lost.",
    )
    grace_s: float | None = Field(
        None,
        ge=0,
        description="Seconds that the session outlives its viewer; at most, and by default, the server's.",
    )


class PromptRequest(Request):
    """Body of `POST /v1/sessions/{id}/prompt`."""

    prompt: WirePrompt
    recache: bool = Field(False, description="Re-run the window under the new prompt too.")
    over: Over = 0.0


class VideoRequest(ImageStart):
    """Body of `POST /v1/videos`."""

    prompt: WirePrompt
    model: ModelName = None
    seed: int = Field(0, ge=0, le=MAX_SEED)
    num_frames: int = Field(81, ge=1)
    height: int | None = Field(None, description="Of a frame in pixels; by default the model's.")
    width: int | None = Field(None, description="Of a frame in pixels; by default the model's.")
    timeline: list[TimelineEntry] = Field(
        default=[], max_length=MAX_CHANGES, description="Prompts that begin later, in any order."
    )


class Offer(Request):
    """Body of `POST /v1/sessions/{id}/webrtc`."""

    sdp: str = Field(max_length=MAX_SDP)
    type: Literal["offer"] = "offer"


class Answer(Reply):
    sdp: str
    type: Literal["answer"] = "answer"


Warnings = Annotated[
    list[str],
    Field(description="What the model has not learned of the prompt or the size."),
]
"""Sentences for people; the request was taken all the same."""
Expansion = Annotated[
    str | None,
    Field(description="The prompt as a language model has written it out, which is what is shown; if any."),
]


class PromptReply(Reply):
    """A prompt was taken: from `chunk` on the stream shows it, unless a later prompt comes before.

    Attributes:
        at_s: when that chunk begins, in seconds of the stream; None from older servers.
        full_chunk, full_s: the same of the first chunk that shows it wholly, after a transition.
    """

    prompt_id: int
    chunk: int
    at_s: float | None = None
    full_chunk: int | None = None
    full_s: float | None = None
    warnings: Warnings = Field(default=[])
    expanded: Expansion = None


class SessionInfo(Reply):
    """Where a session stands.

    Attributes:
        model: the name of what it shows; "" from older servers.
        chunk: index of the next chunk that will be started.
        prompt_id: of the newest prompt; the one given at creation is 0.
        frames_made, frames_dropped: so far; dropped ones never reached the viewer.
    """

    id: str
    model: str = ""
    state: State
    chunk: int
    prompt_id: int
    seed: int
    fps: float
    height: int
    width: int
    pace: Pace
    grace_s: float
    frames_made: int
    frames_dropped: int
    strength: float | None = Field(None, description="Of the viewer's own video; null: there is none.")


class SessionCreated(SessionInfo):
    """A new session; `token` opens everything under its path."""

    token: str = Field(repr=False)
    watch: str = Field(
        "", repr=False, description="Path below which others may watch, and do nothing else: /frames.mjpeg."
    )
    warnings: Warnings = Field(default=[])
    expanded: Expansion = None


class OutputRequest(Request):
    """Body of `POST /v1/sessions/{id}/outputs`."""

    target: str = Field(
        min_length=1,
        max_length=MAX_TARGET,
        description="Where the stream goes: rtmp://, rtmps://, srt:// or udp://, or the name of a file.",
    )


class OutputInfo(Reply):
    """Where an output of a session stands.

    Attributes:
        target: without what may be a key.
        state: opening, sending, closing, ended or failed.
        frames: sent so far.
        message: why it failed or ended early, if it did.
    """

    id: str
    target: str
    state: OutputState
    frames: int
    message: str | None = None


class OutputList(Reply):
    outputs: list[OutputInfo]


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


ERROR_CODES = frozenset(
    {
        "adapters_fixed",
        "bad_adapter",
        "bad_frame",
        "bad_image",
        "bad_model",
        "bad_offer",
        "bad_output",
        "bad_prompt",
        "bad_request",
        "bad_size",
        "bad_timeline",
        "busy",
        "draining",
        "error",
        "forbidden",
        "forbidden_host",
        "forbidden_origin",
        "full",
        "internal",
        "interrupted",
        "invalid",
        "loading",
        "method_not_allowed",
        "no_session",
        "no_verdict",
        "not_finite",
        "not_found",
        "outputs_off",
        "preparing",
        "quota",
        "rate_limited",
        "refused",
        "shutting_down",
        "timeout",
        "too_large",
        "too_long",
        "unauthorized",
        "unsupported_type",
        "webrtc_off",
        "wrong_version",
    }
)


class ErrorDetail(Reply):
    """`code` is for programs, `message` for people; `retry_after` in seconds where trying again helps.

    `progress` is the share of loading that is done, 0..1, while the server loads.
    """

    code: str = Field(description=f"One of {', '.join(sorted(ERROR_CODES))}; later servers may have others.")
    message: str
    retry_after: float | None = None
    progress: float | None = None


class ErrorBody(Reply):
    """The body of every HTTP error."""

    error: ErrorDetail
