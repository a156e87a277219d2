"""What server and client say to each other, version 1: HTTP bodies, JSON messages, binary frames.

Requests refuse fields they do not know; replies may gain fields, which clients ignore. `docs/serving.md` says
when each is sent.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pyrf.config import MAX_SEED

Pace = Literal["realtime", "max"]
FrameFormat = Literal["jpeg", "raw"]
State = Literal["running", "paused", "detached", "ended"]
EndReason = Literal["closed", "expired", "max_length", "shutdown", "failed", "replaced"]

CLOSE_CODES: dict[EndReason, int] = {
    "closed": 1000,
    "max_length": 1000,
    "shutdown": 1001,
    "failed": 1011,
    "expired": 4404,
    "replaced": 4409,
}
"""Why a stream ends -> the code its WebSocket is closed with."""
NO_SESSION_CODE = 4404
"""Close code of a WebSocket for a session that is not there, or whose token is wrong."""
TOO_LARGE_CODE = 1009
"""Close code of a WebSocket whose viewer sent too much at once."""


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")


# HTTP ------------------------------------------------------------------------------------------------


class SessionRequest(Request):
    """Body of `POST /v1/sessions`."""

    prompt: str
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

    prompt: str
    recache: bool = Field(False, description="Re-run the window under the new prompt too.")


class VideoRequest(Request):
    """Body of `POST /v1/videos`."""

    prompt: str
    seed: int = Field(0, ge=0, le=MAX_SEED)
    num_frames: int = Field(81, ge=1)
    height: int | None = None
    width: int | None = None


class Offer(Request):
    """Body of `POST /v1/sessions/{id}/webrtc`."""

    sdp: str
    type: Literal["offer"] = "offer"


class Answer(Reply):
    sdp: str
    type: Literal["answer"] = "answer"


class PromptReply(Reply):
    """A prompt was taken: from `chunk` on the stream shows it, unless a later prompt comes before."""

    prompt_id: int
    chunk: int


class SessionInfo(Reply):
    """Where a session stands.

    Attributes:
        chunk: index of the next chunk that will be started.
        prompt_id: of the newest prompt; the one given at creation is 0.
        frames_made, frames_dropped: so far; dropped ones never reached the viewer.
    """

    id: str
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


class SessionCreated(SessionInfo):
    """A new session; `token` opens everything under its path."""

    token: str


class Limits(Reply):
    max_sessions: int
    max_session_s: float
    max_video_frames: int
    max_prompt_chars: int
    max_pixels: int
    grace_s: float


class IceServer(Reply):
    """A STUN or TURN server for WebRTC, in the form that a browser's `RTCPeerConnection` takes."""

    urls: str
    username: str | None = None
    credential: str | None = None


class ServerInfo(Reply):
    """What is served, from `GET /v1/model`."""

    version: str
    model: str
    backend: str
    device: str
    dtype: str
    fps: float
    height: int
    width: int
    chunk_frames: int = Field(description="Frames of a chunk; the first chunk has fewer.")
    sessions: int
    limits: Limits
    ice_servers: list[IceServer] = Field(default=[], description="For WebRTC beyond the local network.")


class ErrorDetail(Reply):
    """`code` is for programs, `message` for people; `retry_after` in seconds where trying again helps."""

    code: str
    message: str
    retry_after: float | None = None


class ErrorBody(Reply):
    """The body of every HTTP error."""

    error: ErrorDetail


class FrameFields(Reply):
    """Where a frame stands, and how it was made.

    Attributes:
        chunk, frame: indices in the stream, from 0. Frames that were dropped leave a gap.
        pts_s: seconds from the stream's first frame to this one, frame / fps.
        chunk_frames: frames of this chunk.
        prompt_id: of the prompt that the frame shows.
        made_at: when the chunk was finished, seconds of Unix time.
        compute_ms: what the chunk took the model.
        dropped: frames of the session dropped so far.
    """

    chunk: int
    frame: int
    pts_s: float
    chunk_frames: int
    prompt_id: int
    made_at: float
    compute_ms: float
    dropped: int


# JSON messages from the viewer -------------------------------------------------------------------------


class Control(Request):
    """`ref` is given back in the reply."""

    ref: Annotated[str, Field(max_length=64)] | int | None = None


class PromptControl(Control):
    type: Literal["prompt"]
    prompt: str
    recache: bool = False


class PauseControl(Control):
    type: Literal["pause"]


class ResumeControl(Control):
    type: Literal["resume"]


class CloseControl(Control):
    type: Literal["close"]


AnyControl = Annotated[
    PromptControl | PauseControl | ResumeControl | CloseControl, Field(discriminator="type")
]
CONTROL: TypeAdapter[PromptControl | PauseControl | ResumeControl | CloseControl] = TypeAdapter(AnyControl)


# JSON messages from the server -------------------------------------------------------------------------


class Message(Reply):
    ref: str | int | None = None


class HelloMessage(Message):
    """The first message of a connection."""

    type: Literal["hello"] = "hello"
    session: SessionInfo
    format: FrameFormat | Literal["video"]


class PromptMessage(Message):
    """As `PromptReply`."""

    type: Literal["prompt"] = "prompt"
    prompt_id: int
    chunk: int


class StateMessage(Message):
    """The session was paused or resumed; `chunk` is the next to be started."""

    type: Literal["state"] = "state"
    state: State
    chunk: int


class ErrorMessage(Message):
    """A control message was refused; the stream goes on."""

    type: Literal["error"] = "error"
    error: ErrorDetail


class ClosingMessage(Message):
    """The last message of a connection."""

    type: Literal["closing"] = "closing"
    reason: EndReason
    message: str


class ChunkMessage(Message, FrameFields):
    """Over a data channel only: the first frame of this chunk is on its way."""

    type: Literal["chunk"] = "chunk"


AnyMessage = Annotated[
    HelloMessage | PromptMessage | StateMessage | ErrorMessage | ClosingMessage | ChunkMessage,
    Field(discriminator="type"),
]
MESSAGE: TypeAdapter[
    HelloMessage | PromptMessage | StateMessage | ErrorMessage | ClosingMessage | ChunkMessage
] = TypeAdapter(AnyMessage)


# Binary frames -----------------------------------------------------------------------------------------


class FrameHeader(FrameFields):
    """What stands before the pixels of a frame.

    Attributes:
        format: jpeg, or raw: height * width * 3 bytes of RGB, row by row.
    """

    width: int
    height: int
    format: FrameFormat


_LENGTH = struct.Struct(">I")


def pack_frame(header: FrameHeader, pixels: bytes) -> bytes:
    """A binary message: the header's length (4 bytes, big-endian), the header as JSON, the pixels."""
    text = header.model_dump_json().encode()
    return b"".join((_LENGTH.pack(len(text)), text, pixels))


def unpack_frame(message: bytes) -> tuple[FrameHeader, memoryview]:
    """Inverse of `pack_frame`.

    Raises:
        ValueError: when the message is cut short or its header is no frame header.
    """
    if len(message) < _LENGTH.size:
        raise ValueError(f"a frame message has at least {_LENGTH.size} bytes, got {len(message)}")
    end = _LENGTH.size + _LENGTH.unpack_from(message)[0]
    if end > len(message):
        raise ValueError(f"a frame message of {len(message)} bytes names a header that ends at byte {end}")
    return FrameHeader.model_validate_json(message[_LENGTH.size : end]), memoryview(message)[end:]
