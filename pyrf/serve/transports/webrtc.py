"""A session's video over WebRTC, with a data channel for controls."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription
from av import VideoFrame
from numpy.typing import NDArray

from pyrf.protocol import Answer, ChunkMessage, HelloMessage, Message, Offer
from pyrf.serve.errors import ServeError
from pyrf.serve.ice import parse_ice_server
from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.viewer import Viewer
from pyrf.serve.transports.controls import answer

logger = logging.getLogger(__name__)

KIND = "webrtc"
"""Of the viewers that come by this way."""

CLOCK_RATE = 90_000
"""Of RTP timestamps of video."""
CONNECT_S = 20.0
"""Seconds that a peer has to connect after its offer was answered."""
CHANNEL_BYTES = 65_536
"""What may wait in a data channel; a peer that does not read loses messages beyond it."""


class Peers:
    """The WebRTC connections of a server."""

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._peers: set[_Peer] = set()

    async def answer(self, session: Session, offer: Offer) -> Answer:
        """Take a browser's offer; the session is attached to once the connection stands.

        Raises:
            ServeError: 422 when the offer is not one that can be answered.
        """
        peer = _Peer(self._registry, session, on_close=self._peers.discard)
        self._peers.add(peer)
        try:
            return Answer(sdp=await peer.accept(offer))
        except Exception as error:  # the parser of session descriptions raises whatever it stumbles over
            await peer.close()
            problem = (str(error) or type(error).__name__).splitlines()[0]
            raise ServeError(422, "bad_offer", f"the offer cannot be answered: {problem}") from None

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(peer.close() for peer in list(self._peers)), return_exceptions=True)


class _Peer:
    """One connection: a track out, a data channel in and out."""

    def __init__(
        self, registry: SessionRegistry, session: Session, on_close: Callable[[_Peer], None]
    ) -> None:
        self._registry, self._session, self._on_close = registry, session, on_close
        named = map(parse_ice_server, registry.settings.ice_servers)
        servers = [RTCIceServer(**server.model_dump()) for server in named]
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self.connection.on("datachannel", self._on_channel)
        self.connection.on("connectionstatechange", self._on_state)
        self._channel: RTCDataChannel | None = None
        self._unsent: deque[Message] = deque(maxlen=32)  # while the channel opens
        self._closing: asyncio.Task[None] | None = None
        self._timeout = asyncio.get_running_loop().call_later(CONNECT_S, self._close_soon)
        self._track = _SessionTrack(session, self._send, self._close_soon)

    async def accept(self, offer: Offer) -> str:
        """The answer to an offer, as SDP."""
        await self.connection.setRemoteDescription(RTCSessionDescription(offer.sdp, offer.type))
        videos = [media for media in SessionDescription.parse(offer.sdp).media if media.kind == "video"]
        # The track goes to the first; one that is not to be sent would never attach to the session.
        if not videos or videos[0].direction not in ("recvonly", "sendrecv"):
            raise ValueError("it asks for no video; add one video transceiver to receive (recvonly)")
        for transceiver in self.connection.getTransceivers():
            transceiver.direction = "inactive"  # what a viewer sends would be decoded and kept for nobody
        self.connection.addTrack(self._track)
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return self.connection.localDescription.sdp

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._on_message)
        self._send(HelloMessage(session=self._session.info(), format="video"))
        while self._unsent:
            self._send(self._unsent.popleft())

    def _on_message(self, text: str | bytes) -> None:
        reply = answer(self._registry, self._session, text)
        if reply is not None:
            self._send(reply)

    def _send(self, message: Message) -> None:
        channel = self._channel
        if channel is None:
            self._unsent.append(message)
        elif channel.readyState == "open" and channel.bufferedAmount < CHANNEL_BYTES:
            channel.send(message.model_dump_json(exclude_none=True))

    def _on_state(self) -> None:
        state = self.connection.connectionState
        if state == "connected":
            self._timeout.cancel()
            logger.info("viewer attached", extra={"session": self._session.id, "transport": KIND})
        elif state in ("failed", "closed"):
            self._close_soon()

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self.close())

    async def close(self) -> None:
        self._timeout.cancel()
        self._on_close(self)
        self._track.leave()
        await self.connection.close()


class _SessionTrack(MediaStreamTrack):
    """Plays a session at its frame rate. Attaches to it when the first frame is asked for.

    Args:
        send: takes what goes over the data channel.
        on_end: called when the session has ended for this viewer.
    """

    kind = "video"

    def __init__(self, session: Session, send: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        super().__init__()
        self._session, self._send, self._on_end = session, send, on_end
        self._viewer: Viewer | None = None
        self._frames: deque[NDArray[np.uint8]] = deque()
        self._origin = self._due = 0.0

    async def recv(self) -> VideoFrame:
        """The next frame, when it is due."""
        loop = asyncio.get_running_loop()
        if self._viewer is None:
            self._viewer = self._session.attach(KIND)
            self._origin = self._due = loop.time()
        pixels = await self._next_frame(self._viewer)
        self._due = max(self._due, loop.time())
        await asyncio.sleep(self._due - loop.time())
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = int((self._due - self._origin) * CLOCK_RATE), Fraction(1, CLOCK_RATE)
        self._due += 1 / self._session.options.fps
        return frame

    async def _next_frame(self, viewer: Viewer) -> NDArray[np.uint8]:
        while True:
            for message in viewer.messages():
                self._send(message)
            if not viewer.takes_frames:
                self._frames.clear()
            if self._frames:
                return self._frames.popleft()
            item = await viewer.next()
            if item is None:
                self._send(viewer.closing_message())
                self._on_end()
                raise MediaStreamError
            if isinstance(item, MadeChunk):
                self._frames.extend(item.chunk.frames)
                self._send(self._describe(item))
            else:
                self._send(item)

    def _describe(self, made: MadeChunk) -> ChunkMessage:
        session = self._session
        return ChunkMessage(**vars(made.frame_fields(0, session.options.fps, session.frames_dropped)))

    def leave(self) -> None:
        """Let go of the session."""
        self.stop()
        if self._viewer is not None:
            self._session.detach(self._viewer)
            logger.info("viewer detached", extra={"session": self._session.id, "transport": KIND})
