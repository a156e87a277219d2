"""A server that sessions are begun at, and clips are asked of."""

from __future__ import annotations

import re
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Self
from urllib.parse import urlencode

from pyrf.client.address import Verify, parse_address
from pyrf.client.errors import BadReplyError
from pyrf.client.http import HttpCalls, request_body
from pyrf.client.images import SentImage, in_base64
from pyrf.client.prompts import wire_prompt, wire_timeline
from pyrf.client.session import AsyncSession
from pyrf.config import Fit, StartKind
from pyrf.protocol import (
    FrameFormat,
    ModelList,
    ModelSummary,
    Pace,
    ServerInfo,
    SessionCreated,
    SessionRequest,
    VideoRequest,
)
from pyrf.streaming.change import Change
from pyrf.streaming.mix import GivenPrompt

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
        self._calls = HttpCalls(parse_address(self.url, verify), token, timeout, patience)
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
        session = AsyncSession(self.url, self._calls, created, format)
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
