"""Frames and controls of a session over a WebSocket."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from pyrf.protocol import (
    CLOSE_CODES,
    NO_SESSION_CODE,
    TOO_LARGE_CODE,
    ErrorMessage,
    FrameFormat,
    HelloMessage,
    Message,
)
from pyrf.serve.envelope import note_refusal
from pyrf.serve.errors import ServeError
from pyrf.serve.handshake import accept
from pyrf.serve.security import find_session
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.viewer import FAREWELL_S, Viewer
from pyrf.serve.state import TheServer
from pyrf.serve.transports.controls import answer
from pyrf.serve.transports.frames import FrameEncoder

logger = logging.getLogger(__name__)
router = APIRouter()

FLOOD_S = 0.02
"""Seconds before the next message of a viewer that sends too many is looked at."""


@router.websocket("/v1/sessions/{id}/ws")
async def stream(
    websocket: WebSocket,
    id: str,
    server: TheServer,
    format: FrameFormat = "jpeg",
) -> None:
    """Attach to a session. See docs/serving.md for the messages."""
    token = await accept(websocket)
    try:
        session = find_session(server, websocket.scope, id, token)
    except ServeError as error:
        server.metrics.count_refusal(error.reply.code)
        note_refusal(websocket.scope, error.reply.code)
        await websocket.close(NO_SESSION_CODE, error.reply.message)
        return
    viewer = session.attach("websocket")
    logger.info("viewer attached", extra={"session": id, "transport": viewer.kind, "format": format})
    sender = asyncio.create_task(_send(websocket, session, viewer, format, server.encoder))
    receiver = asyncio.create_task(_receive(websocket, server.registry, session))
    ended = asyncio.create_task(viewer.ended.wait())
    try:
        await asyncio.wait((sender, receiver, ended), return_when=asyncio.FIRST_COMPLETED)
        if viewer.ending is not None:
            await asyncio.wait((sender,), timeout=FAREWELL_S)
    finally:
        session.detach(viewer)
        logger.info("viewer detached", extra={"session": id, "transport": viewer.kind})
        for task in (sender, receiver, ended):
            task.cancel()
        for outcome in await asyncio.gather(sender, receiver, return_exceptions=True):
            if isinstance(outcome, _TooLargeError):  # not before now: nothing may be sent after it
                with suppress(RuntimeError, WebSocketDisconnect):  # it may be closed already
                    await websocket.close(TOO_LARGE_CODE, str(outcome))
            elif isinstance(outcome, Exception) and not isinstance(outcome, WebSocketDisconnect):
                logger.error("viewer failed", exc_info=outcome, extra={"session": id})


class _TooLargeError(Exception):
    """A viewer's message exceeds the limit."""


async def _send(
    websocket: WebSocket, session: Session, viewer: Viewer, format: FrameFormat, encoder: FrameEncoder
) -> None:
    """Send chunks and messages until the session ends for this viewer, then close the socket."""
    await _send_message(websocket, HelloMessage(session=session.info(), format=format))
    while (item := await viewer.next()) is not None:
        if isinstance(item, Message):
            await _send_message(websocket, item)
            continue
        for message in await encoder.messages(item, format, session.options.fps, session.frames_dropped):
            await websocket.send_bytes(message)
    closing = viewer.closing_message()
    await _send_message(websocket, closing)
    await websocket.close(CLOSE_CODES[closing.reason], closing.message)


async def _receive(websocket: WebSocket, registry: SessionRegistry, session: Session) -> None:
    """Answer control messages and take frames until the socket closes; of bad ones only the viewer hears.

    Raises:
        _TooLargeError: for a message that not every server below this app would have refused.
    """
    limit = registry.settings.max_body_bytes
    frame_limit = max(limit, registry.settings.max_source_bytes)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        data: bytes = message.get("bytes") or b"" if text is None else text.encode()
        if len(data) > (most := frame_limit if text is None else limit):
            raise _TooLargeError(f"a message may have {most} bytes; send less")
        if text is None:
            reply: Message | None = await _take_frame(registry, session, data)
        else:
            reply = await answer(registry, session, data)
        if reply is not None:
            with suppress(RuntimeError):  # the other side of this socket may have closed it just now
                await _send_message(websocket, reply)
        if isinstance(reply, ErrorMessage) and reply.error.code == "rate_limited":
            await asyncio.sleep(FLOOD_S)


async def _take_frame(registry: SessionRegistry, session: Session, jpeg: bytes) -> ErrorMessage | None:
    """Take a frame of the viewer's own video; one that comes too soon is lost without a word."""
    try:
        if not registry.sources.show(session, jpeg):
            await asyncio.sleep(FLOOD_S)
    except ServeError as error:
        await asyncio.sleep(FLOOD_S)
        return ErrorMessage(error=error.reply)
    return None


async def _send_message(websocket: WebSocket, message: Message) -> None:
    await websocket.send_text(message.model_dump_json(exclude_none=True))
