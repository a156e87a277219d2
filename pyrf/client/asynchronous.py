"""Sessions of a server as async iterators of frames."""

from __future__ import annotations

import re
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Self, TypeVar
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pyrf.client.address import Verify, parse_address
from pyrf.client.errors import (
    BadArgumentError,
    BadReplyError,
    ClientError,
    RefusedError,
    SessionLostError,
    UnreachableError,
)
from pyrf.client.frames import Frame, decode_frame, encode_jpeg
from pyrf.client.http import HttpCalls, Tries, request_body
from pyrf.client.images import SentImage, in_base64
from pyrf.client.outputs import AsyncLeaving
from pyrf.client.prompts import wire_prompt, wire_timeline
from pyrf.client.socket import attach, attach_error
from pyrf.config import Fit, StartKind
from pyrf.protocol import (
    MESSAGE,
    AdaptersReply,
    AdaptersRequest,
    ClosingMessage,
    FrameFormat,
    ModelList,
    ModelSummary,
    Pace,
    PromptReply,
    PromptRequest,
    ServerInfo,
    SessionCreated,
    SessionInfo,
    SessionRequest,
    SourceControl,
    VideoRequest,
)
from pyrf.streaming.change import Change
from pyrf.streaming.mix import GivenPrompt

R = TypeVar("R", bound=BaseModel)

LEAST_PATIENCE_S = 1.0
"""Seconds in which a lost connection is made again, however short the grace period is."""
_ID, _TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,200}"), re.compile(r"[A-Za-z0-9_~.-]{1,200}")


class AsyncClient:
    """A server to begin sessions at.

    What is safe is tried again: when the server cannot be reached, or says when to come back. A request that
    it may have done already is not. Proxies are those that the environment names; this machine needs none.

    Args:
        url: such as "http://127.0.0.1:8000", "https://video.example/live" or "unix:/run/pyrf.sock".
        token: the server's, if it has one.
        timeout: seconds for a reply, and for each piece of a clip.
        patience: seconds in which a call is tried again; 0 for one try.
        verify: for https: True, False for any certificate, a PEM file of authorities, or an SSL context.

    Raises:
        BadArgumentError: for a URL, token or number that cannot be used.
        UnreachableError: when the environment names a proxy that cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 10.0,
        verify: Verify = True,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._address = parse_address(self.url, verify)
        self._calls = HttpCalls(self._address, token, timeout, patience)
        self._sessions: weakref.WeakSet[AsyncSession] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.url}>"

    async def server_info(self, model: str | None = None) -> ServerInfo:
        """What is served.

        Args:
            model: name of one of its models; by default the first.

        Raises:
            ClientError: here and in all calls below, of the kind that happened.
        """
        path = "/v1/model" if model is None else f"/v1/model?{urlencode({'model': model})}"
        return await self._calls.call(ServerInfo, "GET", path, repeatable=True)

    async def models(self) -> list[ModelSummary]:
        """The models that sessions and clips may choose from, the default one first."""
        return (await self._calls.call(ModelList, "GET", "/v1/models", repeatable=True)).models

    async def create_session(
        self,
        prompt: GivenPrompt,
        *,
        model: str | None = None,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        pace: Pace = "realtime",
        grace_s: float | None = None,
        format: FrameFormat = "raw",
        image: SentImage | None = None,
        start: StartKind | None = None,
        fit: Fit = "crop",
    ) -> AsyncSession:
        """Begin a session; see `SessionRequest` for the arguments, `raw` frames are exact.

        Args:
            model: name of one of the server's, as `models` lists them; by default the first.
            image: to start from: a JPEG, PNG or WebP as bytes or a file, an array uint8 [H, W, 3], or an
                image of Pillow.

        Raises:
            RefusedError: when the server is full, or cannot make what was asked for.
        """
        body = request_body(
            SessionRequest,
            prompt=wire_prompt(prompt),
            model=model,
            seed=seed,
            height=height,
            width=width,
            pace=pace,
            grace_s=grace_s,
            image=in_base64(image),
            start=start,
            fit=fit,
        )
        created = await self._calls.call(SessionCreated, "POST", "/v1/sessions", body)
        if not _ID.fullmatch(created.id) or not _TOKEN.fullmatch(
            created.token
        ):  # they go into a URL and a header
            raise BadReplyError(f"{self._calls.place} gave a session an id or token that pyrf never gives")
        session = AsyncSession(self, created, format)
        self._sessions.add(session)
        return session

    async def video(
        self,
        prompt: GivenPrompt,
        num_frames: int = 81,
        *,
        model: str | None = None,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
        timeline: Mapping[str, GivenPrompt | Change] | None = None,
        on_warnings: Callable[[list[str]], None] | None = None,
        image: SentImage | None = None,
        start: StartKind | None = None,
        fit: Fit = "crop",
    ) -> AsyncGenerator[bytes]:
        """A clip as pieces of an MP4, while it is made.

        Args:
            timeline: later prompts by their times, as of `Script.timeline`; those of `Change`s too.
            model, image, start, fit: as for `create_session`.
            on_warnings: called with what the model has not learned of prompt and size, if there is any.

        Raises:
            RefusedError: as `create_session` does.
        """
        body = request_body(
            VideoRequest,
            prompt=wire_prompt(prompt),
            model=model,
            num_frames=num_frames,
            seed=seed,
            height=height,
            width=width,
            timeline=wire_timeline(timeline),
            image=in_base64(image),
            start=start,
            fit=fit,
        )
        async with aclosing(self._calls.pieces("POST", "/v1/videos", body, on_warnings)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Close the connections; sessions are left to their grace period."""
        await self._calls.aclose()  # first, so that no session attaches again
        for session in list(self._sessions):
            await session.disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncSession(AsyncLeaving):
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
        self._reading = False

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

    async def _receive(self) -> str | bytes:
        """The next message, of a new connection if there is none."""
        if self._socket is None:
            client = self._client
            client._calls.check_open()
            self._socket = await attach(client._address, self.created, self._format, client._timeout)
        try:
            return await self._socket.recv()
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
        client = self._client
        if self._socket is None:
            client._calls.check_open()
            self._socket = await attach(client._address, self.created, self._format, client._timeout)
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise attach_error(error) from error

    @property
    def _server(self) -> tuple[str, HttpCalls]:
        return self._client.url, self._client._calls

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
            await self._client._calls.send("DELETE", path, token=token, repeatable=True)
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
        calls, token = self._client._calls, self.created.token
        return await calls.call(reply, method, self._path + path, body, token, repeatable=repeatable)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the session; a server that cannot be asked to hides no exception that is under way."""
        try:
            await self.close()
        except ClientError:
            if kind is None:
                raise
