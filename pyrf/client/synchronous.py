"""Sessions of a server as plain iterators of frames."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from pyrf.client.asynchronous import AsyncClient, AsyncSession, Frame
from pyrf.protocol import ClosingMessage, PromptReply, ServerInfo, SessionInfo

T = TypeVar("T")


class Client:
    """`AsyncClient` for programs without an event loop: the same, in a thread of its own."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        self._portal_context = start_blocking_portal()
        self._portal = self._portal_context.__enter__()
        self._client = self._run(self._make, url, token, timeout)

    @staticmethod
    async def _make(url: str, token: str | None, timeout: float) -> AsyncClient:
        return AsyncClient(url, token, timeout=timeout)

    def _run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **options: Any) -> T:
        async def call() -> T:
            return await function(*arguments, **options)

        return self._portal.call(call)

    def __repr__(self) -> str:
        return f"<Client of {self._client.url}>"

    def server_info(self) -> ServerInfo:
        """What is served."""
        return self._run(self._client.server_info)

    def create_session(self, prompt: str, **options: Any) -> Session:
        """See `AsyncClient.create_session`."""
        return Session(self, self._run(self._client.create_session, prompt, **options))

    def video(self, prompt: str, num_frames: int = 81, **options: Any) -> Iterator[bytes]:
        """See `AsyncClient.video`."""
        pieces = self._client.video(prompt, num_frames, **options)
        try:
            while (piece := self._run(anext, pieces, None)) is not None:
                yield piece
        finally:
            self._run(pieces.aclose)

    def close(self) -> None:
        """Close the connections; sessions are left to their grace period."""
        try:
            self._run(self._client.aclose)
        finally:
            self._portal_context.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """`AsyncSession` for programs without an event loop: `for frame in session`."""

    def __init__(self, client: Client, session: AsyncSession) -> None:
        self._client, self._session = client, session
        self.created = session.created

    @property
    def closing(self) -> ClosingMessage | None:
        """Why the session ended, once it has."""
        return self._session.closing

    def __repr__(self) -> str:
        return repr(self._session).replace("<AsyncSession", "<Session")

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._client._run(self._next)) is not None:
            yield frame

    async def _next(self) -> Frame | None:
        return await anext(self._session, None)

    def set_prompt(self, prompt: str, *, recache: bool = False) -> PromptReply:
        """See `AsyncSession.set_prompt`."""
        return self._client._run(self._session.set_prompt, prompt, recache=recache)

    def pause(self) -> SessionInfo:
        """Let no further chunk be made."""
        return self._client._run(self._session.pause)

    def resume(self) -> SessionInfo:
        """Go on."""
        return self._client._run(self._session.resume)

    def info(self) -> SessionInfo:
        """Where the session stands."""
        return self._client._run(self._session.info)

    def close(self) -> None:
        """End the session, if it has not ended."""
        self._client._run(self._session.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._client._run(self._session.__aexit__, *exception)
