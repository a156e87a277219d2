"""A session's video as a track of a WebRTC connection."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame
from numpy.typing import NDArray

from pyrf.protocol import ChunkMessage, Message
from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.viewer import Viewer

logger = logging.getLogger(__name__)

KIND = "webrtc"
"""Of the viewers that come by this way."""
WATCHES = "whep"
"""Of the watchers that do."""

CLOCK_RATE = 90_000
"""Of RTP timestamps of video."""


class SessionTrack(MediaStreamTrack):
    """Plays a session at its frame rate. Attaches to it when the first frame is asked for.

    Args:
        send: takes what goes over the data channel.
        on_end: called when the session has ended for this viewer.
        watches: whether it watches beside the viewer. Such a track has its place from the beginning.
    """

    kind = "video"

    def __init__(
        self,
        session: Session,
        send: Callable[[Message], None],
        on_end: Callable[[], None],
        *,
        watches: bool = False,
    ) -> None:
        super().__init__()
        self._session, self._send, self._on_end, self._watches = session, send, on_end, watches
        self._viewer: Viewer | None = session.watch(WATCHES) if watches else None
        self._began = False
        self._frames: deque[NDArray[np.uint8]] = deque()
        self._origin = self._due = 0.0

    async def recv(self) -> VideoFrame:
        """The next frame, when it is due."""
        loop = asyncio.get_running_loop()
        if self._viewer is None:
            self._viewer = self._session.attach(KIND)
        if not self._began:
            self._began = True
            self._origin = self._due = loop.time()
            if self._watches:
                self._session.watchers.catch_up(self._viewer)
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
        if self._viewer is None:
            return
        if self._watches:
            self._session.unwatch(self._viewer)
            logger.info("watcher detached", extra={"session": self._session.id, "transport": WATCHES})
        else:
            self._session.detach(self._viewer)
            logger.info("viewer detached", extra={"session": self._session.id, "transport": KIND})
