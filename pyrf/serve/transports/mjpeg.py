"""`GET /v1/sessions/{id}/watch/{key}/frames.mjpeg`: JPEGs in one reply without an end, for an `<img>`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.session import Session
from pyrf.serve.transports.frames import FrameEncoder

logger = logging.getLogger(__name__)

KIND = "mjpeg"
"""Of the watchers that come by this way."""
BOUNDARY = "pyrf-frame"
HEADERS = {"Cross-Origin-Resource-Policy": "cross-origin"}
"""Pages of any site may show it: whoever has the address may watch."""
MEDIA_TYPE = f"multipart/x-mixed-replace; boundary={BOUNDARY}"


class MjpegResponse(StreamingResponse):
    """A watcher's reply. Whatever becomes of the connection, the watcher leaves with it.

    Args:
        session: what is watched, from now on.
        encoder: makes the JPEGs.
    """

    def __init__(self, session: Session, encoder: FrameEncoder) -> None:
        self._session, self._watcher = session, session.watch(KIND)
        self._parts = self._made(encoder)
        super().__init__(self._parts, media_type=MEDIA_TYPE, headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        logger.info("watcher attached", extra={"session": self._session.id, "transport": KIND})
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._session.unwatch(self._watcher)
            await self._parts.aclose()
            logger.info("watcher detached", extra={"session": self._session.id, "transport": KIND})

    async def _made(self, encoder: FrameEncoder) -> AsyncGenerator[bytes]:
        """The parts, each when it is due, until the session ends; a slow watcher loses chunks."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while (item := await self._watcher.next()) is not None:
            if not isinstance(item, MadeChunk):
                continue
            for jpeg in await encoder.jpegs(item):
                due = max(due, loop.time())
                await asyncio.sleep(due - loop.time())
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + b"\r\n"
                due += 1 / self._session.options.fps
        yield f"--{BOUNDARY}--\r\n".encode()
