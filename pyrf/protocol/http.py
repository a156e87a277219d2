"""Bodies of HTTP requests and of their replies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pyrf.config import MAX_SEED, Fit, StartKind
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
