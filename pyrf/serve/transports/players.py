"""Players of WHEP: what it calls a resource, a connection of `transports.webrtc` that watches a session."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.session import Session
from pyrf.serve.transports.webrtc import Peer, Peers


@dataclass(frozen=True)
class Playing:
    """A player that has its answer: the resource that WHEP makes of an offer.

    Attributes:
        etag: of its ICE session, which stays the same, as ICE is not begun anew.
    """

    peer: Peer
    etag: str


class Players:
    """The WHEP players of a server, by an id that nobody guesses. Lives on the event loop.

    Args:
        peers: make the connections.
    """

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self._playing: dict[str, Playing] = {}

    async def begin(self, session: Session, sdp: str, requester: str, host: str) -> tuple[str, Playing, str]:
        """Take an offer: the player's id, the player, and the answer; see `Peers.watch`."""
        peer, answer = await self.peers.watch(session, sdp, requester, host)
        for id in [id for id, one in self._playing.items() if one.peer.closed.is_set()]:
            del self._playing[id]
        id, playing = secrets.token_urlsafe(32), Playing(peer, f'"{secrets.token_hex(8)}"')
        self._playing[id] = playing
        return id, playing, answer

    def find(self, session: Session, id: str) -> Playing:
        """The player of this id.

        Raises:
            ServeError: 404 when the session has no such player, or no longer.
        """
        playing = self._playing.get(id)
        if playing is None or playing.peer.session is not session or playing.peer.closed.is_set():
            raise ServeError(404, "not_found", "there is no such player, or no longer; offer again")
        return playing
