"""What a running server holds, and how routes come by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import Depends
from starlette.datastructures import State
from starlette.requests import HTTPConnection

from pyrf.serve.guesses import Guesses
from pyrf.serve.keys.ring import Keyring
from pyrf.serve.metrics import Metrics
from pyrf.serve.settings import ServeSettings

if TYPE_CHECKING:  # they need torch, and the server answers before that is there
    from pyrf.serve.sessions.registry import SessionRegistry
    from pyrf.serve.transports.frames import FrameEncoder
    from pyrf.serve.transports.kept import KeptClips
    from pyrf.serve.transports.outputs import Outputs
    from pyrf.serve.transports.players import Players
    from pyrf.serve.transports.playlists import Playlists
    from pyrf.serve.transports.webrtc import Peers


@dataclass(frozen=True)
class ServerState:
    """What a running server holds: `app.state.server`, from the app's start to its end."""

    registry: SessionRegistry
    encoder: FrameEncoder
    peers: Peers
    players: Players
    playlists: Playlists
    outputs: Outputs
    settings: ServeSettings
    metrics: Metrics
    clips: KeptClips
    keyring: Keyring
    guesses: Guesses = field(default_factory=Guesses)


class HasState(Protocol):
    """An app."""

    @property
    def state(self) -> State: ...


def state_of(app: HasState) -> ServerState | None:
    """The state of an app; None before it has started."""
    state: ServerState | None = getattr(app.state, "server", None)
    return state


def running_state(connection: HTTPConnection) -> ServerState:
    """The state of the server that a request or a WebSocket has come to."""
    state: ServerState = connection.app.state.server
    return state


TheServer = Annotated[ServerState, Depends(running_state)]
