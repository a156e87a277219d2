"""The data channel of a WebRTC connection: one, with bounds on what comes over it and what waits in it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from aiortc import RTCDataChannel
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from pyrf.protocol import ErrorDetail, ErrorMessage, Message
from pyrf.serve.sessions.rates import RateLimit

MAX_WAITING = 65_536
"""Bytes that may wait in a data channel; a peer that does not read loses messages beyond it."""
MAX_UNSENT = 32
"""Messages that wait for the channel to open."""
MAX_STREAMS = 16
"""SCTP streams that a peer may use. A data channel takes one, whose number the peer chooses."""
MESSAGES_PER_S, MESSAGES_AT_ONCE = 20, 200
"""Messages that a peer may send, nonsense included, before its connection is closed."""


class ControlChannel:
    """What a viewer says and hears, over the first data channel that it opens.

    Args:
        max_bytes: of a message.
        hear: takes a message, and gives the reply.
        abused: called when the peer exceeds a bound that no honest one comes near.
    """

    def __init__(
        self,
        max_bytes: int,
        hear: Callable[[str | bytes], Awaitable[Message | None]],
        abused: Callable[[], None],
    ) -> None:
        self._max_bytes, self._hear, self._abused = max_bytes, hear, abused
        self._channel: RTCDataChannel | None = None
        self._unsent: deque[Message] = deque(maxlen=MAX_UNSENT)
        self._rate = RateLimit(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        self._turn = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()

    def guard(self, transport: RTCSctpTransport) -> None:
        """Bound what a peer may send: streams, messages, and pieces of messages that are never whole."""
        transport._inbound_streams_max = transport._outbound_streams_count = MAX_STREAMS
        setattr(transport, "getCapabilities", lambda: RTCSctpCapabilities(self._max_bytes))  # noqa: B010
        whole, room, heard = transport._handle_data, transport._advertised_rwnd, 4 * self._max_bytes

        async def handle_data(data: bytes) -> None:
            try:
                await whole(data)
            except ConnectionError:
                raise
            except Exception:  # it stumbles over what a peer must not send
                self._abused()
            pieces = room - transport._advertised_rwnd
            streams = max(len(transport._inbound_streams), len(transport._data_channels))
            if pieces > heard or streams > MAX_STREAMS or len(transport._sack_misordered) > 4096:
                self._abused()

        setattr(transport, "_handle_data", handle_data)  # noqa: B010  # a method of this object alone

    def open(self, channel: RTCDataChannel, hello: Message) -> None:
        """Take a channel that the peer opened; a second one is closed."""
        if self._channel is not None and self._channel.readyState == "open":
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._on_message)
        self.send(hello)
        while self._unsent:
            self.send(self._unsent.popleft())

    def _on_message(self, text: str | bytes) -> None:
        size = len(text) if isinstance(text, bytes) else len(text.encode())
        if self._rate.wait_for("") or len(self._answering) >= MESSAGES_AT_ONCE:
            self._abused()
        elif size > self._max_bytes:
            problem = f"a message may have {self._max_bytes} bytes, got {size}; send less"
            self.send(ErrorMessage(error=ErrorDetail(code="too_large", message=problem)))
        else:
            task = asyncio.create_task(self._answer(text))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, text: str | bytes) -> None:
        """Messages are answered in the order in which they came."""
        async with self._turn:
            if (reply := await self._hear(text)) is not None:
                self.send(reply)

    def send(self, message: Message) -> None:
        """Send a message, or keep it until there is a channel."""
        channel = self._channel
        if channel is None:
            self._unsent.append(message)
        elif channel.readyState == "open" and channel.bufferedAmount < MAX_WAITING:
            channel.send(message.model_dump_json(exclude_none=True))
