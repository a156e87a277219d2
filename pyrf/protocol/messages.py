"""JSON messages between a viewer and the server, the same over a WebSocket and a data channel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from pyrf.protocol.adapters import AdaptersReply, AdaptersRequest
from pyrf.protocol.errors import ErrorDetail
from pyrf.protocol.frames import FrameFields
from pyrf.protocol.http import Expansion, SessionInfo, Warnings
from pyrf.protocol.prompts import Over, WirePrompt
from pyrf.protocol.terms import EndReason, FrameFormat, Reply, Request, State


class Control(Request):
    """What a viewer says. `ref` is given back in the reply."""

    ref: Annotated[str, Field(max_length=64)] | int | None = None


class PromptControl(Control):
    type: Literal["prompt"]
    prompt: WirePrompt
    recache: bool = False
    over: Over = 0.0


class AdaptersControl(Control, AdaptersRequest):
    type: Literal["adapters"]


class PauseControl(Control):
    type: Literal["pause"]


class ResumeControl(Control):
    type: Literal["resume"]


class CloseControl(Control):
    type: Literal["close"]


class SourceControl(Control):
    """The viewer's own video is restyled, or its strength changes; null: the prompt alone is shown again.

    With `follow_motion` the strength is lowered where the video moves.
    """

    type: Literal["source"]
    strength: float | None = Field(ge=0, le=1)
    follow_motion: bool = False


AnyControl = Annotated[
    PromptControl | AdaptersControl | PauseControl | ResumeControl | CloseControl | SourceControl,
    Field(discriminator="type"),
]
CONTROL: TypeAdapter[AnyControl] = TypeAdapter(AnyControl)


class Message(Reply):
    """What the server says. `ref` is that of the control message which it answers."""

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
    at_s: float | None = None
    full_chunk: int | None = None
    full_s: float | None = None
    warnings: Warnings = Field(default=[])
    expanded: Expansion = None


class AdaptersMessage(Message, AdaptersReply):
    """As `AdaptersReply`; also when another viewer has changed what all see."""

    type: Literal["adapters"] = "adapters"


class SourceMessage(Message):
    """The source was taken: it shows from `chunk` on, once a frame of it has come; null: it is let go."""

    type: Literal["source"] = "source"
    strength: float | None = None
    follow_motion: bool = False
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
    HelloMessage
    | PromptMessage
    | AdaptersMessage
    | SourceMessage
    | StateMessage
    | ErrorMessage
    | ClosingMessage
    | ChunkMessage,
    Field(discriminator="type"),
]
MESSAGE: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)
