"""Sessions of a server as plain iterators of frames."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyrf.client.address import Verify
from pyrf.client.asynchronous import AsyncClient
from pyrf.client.errors import ClientError
from pyrf.client.frames import Frame
from pyrf.client.session import AsyncSession
from pyrf.protocol import (
    AdaptersReply,
    ClosingMessage,
    ModelSummary,
    OutputInfo,
    PromptReply,
    ServerInfo,
    SessionInfo,
)
from pyrf.streaming.mix import GivenPrompt

T = TypeVar("T")


class EventLoop:
    """An event loop in a thread of its own, which keeps no program from ending. Any thread may call it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pyrf-client", daemon=True)
        self._thread.start()

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **options: Any) -> T:
        """Call a coroutine function there; whoever interrupts the wait, cancels the call.

        Raises:
            ClientError: when the loop has ended.
        """
        if not self._thread.is_alive():
            raise ClientError(
                "the client is closed, or this process was forked from its own; make another one"
            )

        async def call() -> T:
            return await function(*arguments, **options)

        future = asyncio.run_coroutine_threadsafe(call(), self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise ClientError("the client was closed during the call") from error
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel what is under way, and end the thread."""
        if self._thread.is_alive():
            self.run(self._cancel_others)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _cancel_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Client:
    """`AsyncClient` for programs without an event loop, in a thread of its own. Threads may share it."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 10.0,
        verify: Verify = True,
    ) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(url, token, timeout=timeout, patience=patience, verify=verify)

        self._loop = EventLoop()
        try:
            self._client = self._run(make)
        except BaseException:
            self._loop.close()
            raise

    def _run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **options: Any) -> T:
        return self._loop.run(function, *arguments, **options)

    def __repr__(self) -> str:
        return f"<Client of {self._client.url}>"

    def server_info(self, model: str | None = None) -> ServerInfo:
        """See `AsyncClient.server_info`."""
        return self._run(self._client.server_info, model)

    def models(self) -> list[ModelSummary]:
        """See `AsyncClient.models`."""
        return self._run(self._client.models)

    def create_session(self, prompt: GivenPrompt, **options: Any) -> Session:
        """See `AsyncClient.create_session`."""
        return Session(self, self._run(self._client.create_session, prompt, **options))

    def video(self, prompt: GivenPrompt, num_frames: int = 81, **options: Any) -> Iterator[bytes]:
        """See `AsyncClient.video`."""
        pieces = self._client.video(prompt, num_frames, **options)
        try:
            while (piece := self._run(anext, pieces, None)) is not None:
                yield piece
        finally:
            with suppress(ClientError):  # the client was closed before the clip was whole
                self._run(pieces.aclose)

    def close(self) -> None:
        """Close the connections; sessions are left to their grace period."""
        with suppress(ClientError):  # it is closed
            self._run(self._client.aclose)
        self._loop.close()

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

    def set_prompt(self, prompt: GivenPrompt, *, recache: bool = False, over: float = 0.0) -> PromptReply:
        """See `AsyncSession.set_prompt`."""
        return self._client._run(self._session.set_prompt, prompt, recache=recache, over=over)

    def set_adapters(self, strengths: Mapping[str, float]) -> AdaptersReply:
        """See `AsyncSession.set_adapters`."""
        return self._client._run(self._session.set_adapters, strengths)

    def set_source(self, strength: float | None, *, follow_motion: bool = False) -> None:
        """See `AsyncSession.set_source`."""
        self._client._run(self._session.set_source, strength, follow_motion=follow_motion)

    def send_frame(self, frame: NDArray[np.uint8] | bytes) -> None:
        """See `AsyncSession.send_frame`."""
        self._client._run(self._session.send_frame, frame)

    @property
    def watch_url(self) -> str:
        """See `AsyncSession.watch_url`."""
        return self._session.watch_url

    @property
    def whep_url(self) -> str:
        """See `AsyncSession.whep_url`."""
        return self._session.whep_url

    @property
    def hls_url(self) -> str:
        """See `AsyncSession.hls_url`."""
        return self._session.hls_url

    def send_to(self, target: str) -> OutputInfo:
        """See `AsyncSession.send_to`."""
        return self._client._run(self._session.send_to, target)

    def outputs(self) -> list[OutputInfo]:
        """See `AsyncSession.outputs`."""
        return self._client._run(self._session.outputs)

    def stop_output(self, id: str) -> None:
        """See `AsyncSession.stop_output`."""
        self._client._run(self._session.stop_output, id)

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
