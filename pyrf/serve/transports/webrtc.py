"""A session's video over WebRTC, with a data channel for controls: who may connect, and each connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from socket import gaierror
from urllib.parse import urlsplit

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.sdp import candidate_from_sdp

from pyrf.protocol import Answer, HelloMessage, Offer
from pyrf.serve.errors import ServeError
from pyrf.serve.ice import parse_ice_server
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.sessions.session import Session
from pyrf.serve.transports.channel import ControlChannel
from pyrf.serve.transports.controls import answer
from pyrf.serve.transports.encoding import TrackEncoder
from pyrf.serve.transports.ice import GuardedConnection, Network
from pyrf.serve.transports.incoming import IncomingVideo
from pyrf.serve.transports.offers import (
    MAX_CANDIDATES,
    MAX_USED_CANDIDATES,
    Address,
    ReadOffer,
    as_address,
    read_fragment,
    read_offer,
)
from pyrf.serve.transports.track import KIND, WATCHES, SessionTrack

logger = logging.getLogger(__name__)

CONNECT_S = 20.0
"""Seconds that a peer has to connect after its offer."""
MAX_CONNECTING, MAX_CONNECTING_PER_ADDRESS = 16, 4
"""Peers that have not connected yet."""
RETRY_S = 2.0
"""What is said to wait when there are too many of them."""


class Peers:
    """The WebRTC connections of a server."""

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._network = Network.of(registry.settings)
        self._servers = [parse_ice_server(text) for text in registry.settings.ice_servers]
        self._peers: set[Peer] = set()

    async def answer(self, session: Session, offer: Offer, requester: str, host: str) -> Answer:
        """Take a browser's offer; the session is attached to once the connection stands.

        Args:
            requester: whom the offer is counted for.
            host: the address that it came from, which packets may be sent to.

        Raises:
            ServeError: 404 when there is no WebRTC here, 422 when the offer is not one that can be answered,
                429 and 503 when too many have not connected yet.
        """
        _, sdp = await self._accept(session, offer.sdp, requester, host, watches=False)
        return Answer(sdp=sdp)

    async def watch(self, session: Session, sdp: str, requester: str, host: str) -> tuple[Peer, str]:
        """Take a WHEP player's offer, and answer it; its peer watches from now on.

        Args:
            sdp, requester, host: as of `answer`.

        Raises:
            ServeError: as `answer` does, and 429 when as many watch the session as may.
        """
        return await self._accept(session, sdp, requester, host, watches=True)

    async def add_candidates(self, peer: Peer, fragment: str, host: str) -> None:
        """Take candidates that a player sends after its offer.

        Raises:
            ServeError: 422 when they cannot be read, are too many, or begin ICE anew.
        """
        try:
            await peer.add_candidates(fragment, await self._allowed(fragment, host))
        except ValueError as error:
            raise ServeError(422, "bad_offer", f"the candidates cannot be used: {error}") from None

    async def _accept(
        self, session: Session, sdp: str, requester: str, host: str, *, watches: bool
    ) -> tuple[Peer, str]:
        if not self._registry.settings.webrtc:
            raise ServeError(404, "webrtc_off", "this server sends no video over WebRTC; use the WebSocket")
        for peer in [peer for peer in self._peers if not peer.connected]:
            tries_anew = peer.session is session and not watches and not peer.watches
            if tries_anew or peer.session.ending is not None:
                await peer.close()
        connecting = [peer.requester for peer in self._peers if not peer.connected]
        if connecting.count(requester) >= MAX_CONNECTING_PER_ADDRESS:
            message = f"{MAX_CONNECTING_PER_ADDRESS} offers of your address wait for their connection"
            raise ServeError(429, "rate_limited", f"{message}; wait until they stand", RETRY_S)
        if len(connecting) >= MAX_CONNECTING:
            message = f"{MAX_CONNECTING} offers wait for their connection; try again"
            raise ServeError(503, "busy", message, RETRY_S)
        try:
            read = read_offer(sdp, await self._allowed(sdp, host), of_player=watches)
        except ValueError as error:
            raise ServeError(422, "bad_offer", f"the offer cannot be answered: {error}") from None
        if watches:
            self._registry.check_watchers(session)
        peer = Peer(self._registry, session, requester, on_close=self._peers.discard, watches=watches)
        self._peers.add(peer)
        try:
            return peer, await peer.accept(read, self._network)
        except ServeError:
            await peer.close()
            raise
        except Exception as error:  # aiortc raises whatever it stumbles over
            await peer.close()
            problem = (str(error) or type(error).__name__).splitlines()[0]
            raise ServeError(422, "bad_offer", f"the offer cannot be answered: {problem}") from None
        except asyncio.CancelledError:
            await peer.close()
            raise

    async def _allowed(self, sdp: str, host: str) -> Collection[Address]:
        """Where an offer may have packets sent to: whence it came, and relays that the operator named."""
        allowed = {address for address in (as_address(host),) if address}
        if " typ relay" in sdp:
            for server in self._servers:
                if server.username is not None:
                    allowed |= await _addresses(urlsplit(f"//{server.urls.partition(':')[2]}").hostname or "")
        return allowed

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(peer.close() for peer in list(self._peers)), return_exceptions=True)


async def _addresses(host: str) -> set[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except (gaierror, UnicodeError):
        return set()
    return {address for *_, place in found if (address := as_address(str(place[0])))}


class Peer:
    """One connection: a track out, and of a viewer a data channel in and out.

    Attributes:
        session: that it shows.
        requester: whom it is counted for.
        watches: whether it is a watcher's, who only sees.
        connected: whether it has stood.
        closed: set once it has let go of the session.
    """

    _offer: ReadOffer

    def __init__(
        self,
        registry: SessionRegistry,
        session: Session,
        requester: str,
        on_close: Callable[[Peer], None],
        *,
        watches: bool,
    ) -> None:
        self._registry, self.session, self.requester = registry, session, requester
        self._on_close, self.watches = on_close, watches
        self.connected = False
        self.closed = asyncio.Event()
        self._named = self._used = 0
        named = map(parse_ice_server, registry.settings.ice_servers)
        servers = [RTCIceServer(**server.model_dump()) for server in named]
        configuration = RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        self.connection = RTCPeerConnection(configuration)
        self.connection.on("datachannel", self._on_channel)
        self.connection.on("connectionstatechange", self._on_state)
        self._closing: asyncio.Task[None] | None = None
        self._timeout = asyncio.get_running_loop().call_later(CONNECT_S, self._close_soon)
        self._channel = ControlChannel(
            registry.settings.max_body_bytes,
            lambda text: answer(registry, session, text),
            self._abused,
        )
        self._track = SessionTrack(session, self._channel.send, self._close_soon, watches=watches)
        self._incoming = IncomingVideo(
            lambda: None if session.restyling.camera is None else session.restyling.camera.feed,
            registry.settings.max_source_pixels,
            registry.sources.decoder,
        )

    async def accept(self, offer: ReadOffer, network: Network) -> str:
        """The answer to an offer, as SDP.

        Raises:
            ServeError: 503 when there is no port left.
        """
        self._offer, self._named, self._used = offer, offer.named, offer.used
        await self.connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        for transceiver in self.connection.getTransceivers():
            transceiver.direction = "inactive"
        sender = self.connection.addTrack(self._track)
        for transceiver in self.connection.getTransceivers():
            if offer.sends and not self.watches and transceiver.sender is sender:
                transceiver.direction = "sendrecv"
                self._incoming.guard(transceiver.receiver)
        options = self.session.options
        encoder = TrackEncoder(offer.codec, options.height, options.width, options.fps)
        setattr(sender, "_RTCRtpSender__encoder", encoder)  # noqa: B010  # it would make one of its own
        GuardedConnection.guard(sender.transport.transport.iceGatherer._connection, network)
        if self.connection.sctp is not None:
            self._channel.guard(self.connection.sctp)
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        if not sender.transport.transport.iceGatherer.getLocalCandidates():
            raise ServeError(503, "busy", "no UDP port is free for the video; try again", RETRY_S)
        return self.connection.localDescription.sdp

    async def add_candidates(self, fragment: str, allowed: Collection[Address]) -> None:
        """Take candidates that come after the offer.

        The end of candidates is not heeded: a player that named none of use is found by its own packets.

        Raises:
            ValueError: when they cannot be read, are too many, or begin ICE anew.
        """
        named, used = read_fragment(fragment, self._offer.ufrag, allowed)
        self._named += named
        if self._named > MAX_CANDIDATES:
            raise ValueError(f"{self._named} were named so far; {MAX_CANDIDATES} are enough")
        room = 0 if self.connected else MAX_USED_CANDIDATES - self._used
        for line in used[:room]:
            self._used += 1
            candidate = candidate_from_sdp(line)
            candidate.sdpMid = self._offer.mid
            await self.connection.addIceCandidate(candidate)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channel.open(channel, HelloMessage(session=self.session.info(), format="video"))

    def _on_state(self) -> None:
        state = self.connection.connectionState
        if state == "connected":
            self.connected = True
            self._timeout.cancel()
            event, kind = ("watcher attached", WATCHES) if self.watches else ("viewer attached", KIND)
            logger.info(event, extra={"session": self.session.id, "transport": kind})
        elif state in ("failed", "closed"):
            self._close_soon()

    def _abused(self) -> None:
        if self._closing is None:
            logger.warning(
                "viewer sent too much", extra={"session": self.session.id, "address": self.requester}
            )
            self._close_soon()

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self.close())

    async def close(self) -> None:
        """Let go of the session and the sockets."""
        self._timeout.cancel()
        self._on_close(self)
        self._track.leave()
        self.closed.set()
        await self.connection.close()
