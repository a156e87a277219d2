"""A session of a server as an async iterator of frames."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pyrf.client.errors import (
    BadArgumentError,
    ClientError,
    RefusedError,
    SessionLostError,
    UnreachableError,
)
from pyrf.client.frames import Frame, decode_frame, encode_jpeg
from pyrf.client.http import HttpCalls, Tries, request_body
from pyrf.client.outputs import AsyncLeaving
from pyrf.client.prompts import wire_prompt
from pyrf.client.socket import attach, attach_error
from pyrf.protocol import (
    MESSAGE,
    AdaptersReply,
    AdaptersRequest,
    ClosingMessage,
    FrameFormat,
    PromptReply,
    PromptRequest,
    SessionCreated,
    SessionInfo,
    SourceControl,
)
from pyrf.streaming.mix import GivenPrompt

R = TypeVar("R", bound=BaseModel)

LEAST_PATIENCE_S = 1.0
"""Seconds in which a lost connection is made again, however short the grace period is."""


class AsyncSession(AsyncLeaving):
    """A session: `async for frame in session` until it ends.

    A lost connection is made again, and the stream goes on; the frames on the way are lost (see
    `Frame.header.frame`). A context manager: leaving it ends the session. One iteration at a time.

    Attributes:
        created: what the server said at the creation.
        closing: why the session ended, once it has.
    """

    def __init__(self, url: str, calls: HttpCalls, created: SessionCreated, format: FrameFormat) -> None:
        self.created = created
        self.closing: ClosingMessage | None = None
        self._url, self._calls, self._format = url, calls, format
        self._path = f"/v1/sessions/{created.id}"
        self._socket: ClientConnection | None = None
        self._reading = False

    def __repr__(self) -> str:
        state = "open" if self.closing is None else f"ended ({self.closing.reason})"
        return f"<AsyncSession {self.created.id} at {self._url}: {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        """The next frame.

        Raises:
            SessionLostError: when the session is gone, or no connection is made within its grace period.
        """
        if self._reading:
            raise ClientError("a session has one iteration at a time; wait for the other one")
        self._reading = True
        try:
            return await self._next()
        finally:
            self._reading = False

    async def _next(self) -> Frame:
        tries: Tries | None = None
        while self.closing is None:
            try:
                message = await self._receive()
            except UnreachableError as error:
                tries = tries or Tries(max(self.created.grace_s, LEAST_PATIENCE_S))
                try:
                    await tries.pause(error, repeatable=True)
                except UnreachableError:
                    raise SessionLostError(f"no connection to session {self.created.id}: {error}") from error
                continue
            if isinstance(message, bytes):
                return decode_frame(message)
            self._heed(message)
        raise StopAsyncIteration

    async def _attached(self) -> ClientConnection:
        """The connection; a new one if there is none."""
        if self._socket is None:
            calls = self._calls
            calls.check_open()
            self._socket = await attach(calls.address, self.created, self._format, calls.timeout)
        return self._socket

    async def _receive(self) -> str | bytes:
        socket = await self._attached()
        try:
            return await socket.recv()
        except ConnectionClosed as error:
            self._socket = None
            raise attach_error(error) from error

    def _heed(self, text: str) -> None:
        with suppress(ValidationError):  # messages that a later server may have are not for us
            message = MESSAGE.validate_json(text)
            if isinstance(message, ClosingMessage):
                self.closing = message

    async def set_prompt(
        self, prompt: GivenPrompt, *, recache: bool = False, over: float = 0.0
    ) -> PromptReply:
        """Change the prompt; the reply says at which chunk and second it shows, and what the model lacks.

        Args:
            prompt, recache, over: as of `pyrf.Stream.set_prompt`.

        Raises:
            RefusedError: for a bad prompt, or too many of them.
        """
        body = request_body(PromptRequest, prompt=wire_prompt(prompt), recache=recache, over=over)
        return await self._call(PromptReply, "POST", "/prompt", body, repeatable=False)

    async def set_adapters(self, strengths: Mapping[str, float]) -> AdaptersReply:
        """Change strengths of the server's adapters by name; the reply names the first chunk that has them.

        Raises:
            RefusedError: when there is no such adapter, or viewers may not change them.
        """
        body = request_body(AdaptersRequest, strengths=dict(strengths))
        return await self._call(AdaptersReply, "POST", "/adapters", body)

    async def set_source(self, strength: float | None, *, follow_motion: bool = False) -> None:
        """Let the stream restyle the frames of `send_frame`, or change how far; None: show the prompt alone.

        It holds for the connection that is there or is made now; say it again after a lost one.

        Args:
            strength: 0 shows the frames, 1 the prompt alone.
            follow_motion: lower the strength where the frames move.

        Raises:
            BadArgumentError: when it does not lie in 0..1.
            UnreachableError: when there is no connection.
        """
        if strength is not None and not 0 <= strength <= 1:
            raise BadArgumentError(f"strength must lie in 0..1, got {strength}")
        control = SourceControl(type="source", strength=strength, follow_motion=follow_motion)
        await self._send(control.model_dump_json(exclude_none=strength is not None))

    async def send_frame(self, frame: NDArray[np.uint8] | bytes) -> None:
        """Send a frame to be restyled: uint8 [H, W, 3], or the bytes of a baseline JPEG.

        The newest frames are shown. Send them in the stream's size (`created`), and no faster than the
        server takes them (`ServerInfo.limits`).

        Raises:
            BadArgumentError: when it is no picture.
            UnreachableError: when there is no connection.
        """
        await self._send(frame if isinstance(frame, bytes) else encode_jpeg(frame))

    async def _send(self, message: str | bytes) -> None:
        socket = await self._attached()
        try:
            await socket.send(message)
        except ConnectionClosed as error:
            raise attach_error(error) from error

    async def pause(self) -> SessionInfo:
        """Let no further chunk be made."""
        return await self._call(SessionInfo, "POST", "/pause")

    async def resume(self) -> SessionInfo:
        """Go on."""
        return await self._call(SessionInfo, "POST", "/resume")

    async def info(self) -> SessionInfo:
        """Where the session stands."""
        return await self._call(SessionInfo, "GET", "")

    async def close(self) -> None:
        """End the session, if it has not ended."""
        try:
            path, token = self._path, self.created.token
            await self._calls.send("DELETE", path, token=token, repeatable=True)
        except RefusedError as error:
            if error.status != 404:
                raise
        finally:
            await self.disconnect()

    async def disconnect(self) -> None:
        """Close the connection and leave the session to its grace period; iterating attaches again."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    async def _call(
        self,
        reply: type[R],
        method: str,
        path: str,
        body: BaseModel | None = None,
        *,
        repeatable: bool = True,
    ) -> R:
        token = self.created.token
        return await self._calls.call(reply, method, self._path + path, body, token, repeatable=repeatable)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the session; a server that cannot be asked to hides no exception that is under way."""
        try:
            await self.close()
        except ClientError:
            if kind is None:
                raise
