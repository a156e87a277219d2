"""Sessions of a server as async iterators of frames."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from pyrf.protocol import (
    MESSAGE,
    NO_SESSION_CODE,
    ClosingMessage,
    ErrorBody,
    ErrorDetail,
    FrameFormat,
    FrameHeader,
    HelloMessage,
    Pace,
    PromptReply,
    PromptRequest,
    ServerInfo,
    SessionCreated,
    SessionInfo,
    SessionRequest,
    VideoRequest,
    unpack_frame,
)

R = TypeVar("R", bound=BaseModel)

RETRY_S = 0.2
"""Seconds before the second try to connect again; they double up to ten times as many."""

CLOSE_S = 0.5
"""Seconds to wait for the other side's goodbye; it may stand behind frames that nobody reads."""


class RefusedError(Exception):
    """The server refused a request.

    Attributes:
        status: of the HTTP reply.
        code: of the error, see docs/serving.md.
        retry_after: seconds after which the same may succeed, if at all.
    """

    def __init__(self, status: int, detail: ErrorDetail) -> None:
        super().__init__(detail.message)
        self.status, self.code, self.retry_after = status, detail.code, detail.retry_after


class SessionLostError(Exception):
    """The session is gone, and the server did not say why."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a session.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        header: indices, time, prompt id, drops.
    """

    pixels: NDArray[np.uint8]
    header: FrameHeader

    def __repr__(self) -> str:
        return f"<Frame {self.header.frame}: {self.pixels.dtype} {list(self.pixels.shape)}>"


class AsyncClient:
    """A server to begin sessions at.

    Args:
        url: such as "http://127.0.0.1:8000".
        token: the server's, if it has one.
        timeout: seconds for a reply.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout, headers=_bearer(token))

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.url}>"

    async def server_info(self) -> ServerInfo:
        """What is served."""
        return await self._call(ServerInfo, "GET", "/v1/model")

    async def create_session(
        self,
        prompt: str,
        *,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        pace: Pace = "realtime",
        grace_s: float | None = None,
        format: FrameFormat = "raw",
    ) -> AsyncSession:
        """Begin a session; see `SessionRequest` for the arguments, `raw` frames are exact.

        Raises:
            RefusedError: when the server is full, or cannot make what was asked for.
        """
        body = SessionRequest(
            prompt=prompt, seed=seed, height=height, width=width, pace=pace, grace_s=grace_s
        )
        created = await self._call(SessionCreated, "POST", "/v1/sessions", body)
        return AsyncSession(self, created, format)

    async def video(
        self,
        prompt: str,
        num_frames: int = 81,
        *,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> AsyncGenerator[bytes]:
        """A clip as pieces of an MP4, while it is made.

        Raises:
            RefusedError: as `create_session` does.
        """
        body = VideoRequest(prompt=prompt, num_frames=num_frames, seed=seed, height=height, width=width)
        async with self._http.stream("POST", "/v1/videos", json=body.model_dump()) as response:
            if response.is_error:
                await response.aread()
                raise _refusal(response)
            async for piece in response.aiter_bytes():
                yield piece

    async def _call(
        self,
        reply: type[R],
        method: str,
        path: str,
        body: BaseModel | None = None,
        token: str | None = None,
    ) -> R:
        response = await self._request(method, path, body, token)
        return reply.model_validate_json(response.content)

    async def _request(
        self, method: str, path: str, body: BaseModel | None = None, token: str | None = None
    ) -> httpx.Response:
        json = None if body is None else body.model_dump()
        response = await self._http.request(method, path, json=json, headers=_bearer(token))
        if response.is_error:
            raise _refusal(response)
        return response

    async def aclose(self) -> None:
        """Close the connections; sessions are left to their grace period."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncSession:
    """A session: `async for frame in session` until it ends.

    A lost connection is made again, and the stream goes on; the frames on the way are lost (see
    `Frame.header.frame`). A context manager: leaving it ends the session. One iteration at a time.

    Attributes:
        created: what the server said at the creation.
        closing: why the session ended, once it has.
    """

    def __init__(self, client: AsyncClient, created: SessionCreated, format: FrameFormat) -> None:
        self.created = created
        self.closing: ClosingMessage | None = None
        self._client, self._format = client, format
        self._path = f"/v1/sessions/{created.id}"
        self._socket: ClientConnection | None = None

    def __repr__(self) -> str:
        state = "open" if self.closing is None else f"ended ({self.closing.reason})"
        return f"<AsyncSession {self.created.id} at {self._client.url}: {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        """The next frame.

        Raises:
            SessionLostError: when the session is gone, or no connection is made within its grace period.
        """
        while self.closing is None:
            if self._socket is None:
                self._socket = await self._connect()
            try:
                message = await self._socket.recv()
            except ConnectionClosed as error:
                self._socket = None
                _check_lost(error)
                continue
            if isinstance(message, bytes):
                return _decode(message)
            self._heed(message)
        raise StopAsyncIteration

    def _heed(self, text: str) -> None:
        with suppress(ValidationError):  # messages that a later server may have are not for us
            message = MESSAGE.validate_json(text)
            if isinstance(message, ClosingMessage):
                self.closing = message

    async def _connect(self) -> ClientConnection:
        """Attach to the session, with patience for its grace period."""
        base = self._client.url.replace("http", "ws", 1)
        wait_s = RETRY_S
        loop = asyncio.get_running_loop()
        until = loop.time() + max(self.created.grace_s, 1.0)
        while True:
            try:
                socket = await connect(
                    f"{base}{self._path}/ws?format={self._format}",
                    additional_headers=_bearer(self.created.token),
                    compression=None,
                    max_size=None,
                    close_timeout=CLOSE_S,
                )
                hello = MESSAGE.validate_json(await socket.recv())
                if not isinstance(hello, HelloMessage):
                    raise SessionLostError(f"the server began with {hello.type}, not hello")
                return socket
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
                _check_lost(error)
                if loop.time() + wait_s > until:
                    raise SessionLostError(f"no connection to session {self.created.id}: {error}") from error
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 10 * RETRY_S)

    async def set_prompt(self, prompt: str, *, recache: bool = False) -> PromptReply:
        """Switch the prompt; the reply names the first chunk that shows it.

        Raises:
            RefusedError: for a bad prompt, or too many of them.
        """
        body = PromptRequest(prompt=prompt, recache=recache)
        return await self._call(PromptReply, "POST", "/prompt", body)

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
            await self._client._request("DELETE", self._path, token=self.created.token)
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

    async def _call(self, reply: type[R], method: str, path: str, body: BaseModel | None = None) -> R:
        return await self._client._call(reply, method, self._path + path, body, self.created.token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the session; a server that cannot be asked to hides no exception that is under way."""
        try:
            await self.close()
        except (httpx.TransportError, RefusedError):
            if kind is None:
                raise


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _refusal(response: httpx.Response) -> RefusedError:
    try:
        detail = ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # from something between us and the server
        detail = ErrorDetail(code="error", message=f"HTTP {response.status_code} {response.reason_phrase}")
    return RefusedError(response.status_code, detail)


def _check_lost(error: Exception) -> None:
    """Raise when trying again is in vain."""
    if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code == NO_SESSION_CODE:
        raise SessionLostError(error.rcvd.reason) from error


def _decode(message: bytes) -> Frame:
    header, data = unpack_frame(message)
    if header.format == "raw":
        pixels = np.frombuffer(data, np.uint8).reshape(header.height, header.width, 3)
    else:
        pixels = np.asarray(Image.open(io.BytesIO(data)))
    return Frame(pixels, header)
