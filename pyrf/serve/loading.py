"""An app that answers from the first moment, while the one that it will be is still made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from fastapi import FastAPI, WebSocket
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from pyrf.serve import page
from pyrf.serve.ends import end_process
from pyrf.serve.errors import ServeError, add_error_handlers, error_response
from pyrf.serve.handshake import take_query_token
from pyrf.serve.metrics import Metrics
from pyrf.serve.outside import put_before
from pyrf.serve.settings import ServeSettings

RETRY_S = 1.0
"""What a loading server says to wait before the next question."""

Report = Callable[[float], None]
"""Takes the share of loading that is done, 0..1."""
Make = Callable[[Report], FastAPI]


class LoadingApp:
    """An ASGI app that serves the page and says that it lives, and refuses the rest until it is loaded.

    Args:
        make: makes the app; called in a thread, with what it shall tell its progress.
        settings: the app's.
        metrics: where refusals are counted.
        on_loaded: called on the event loop once the app has started.
        on_failed: called instead when the app cannot be made or started, with the reason.

    Attributes:
        progress: share of loading that is done, 0..1.
    """

    def __init__(
        self,
        make: Make,
        settings: ServeSettings,
        metrics: Metrics,
        *,
        on_loaded: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._make, self._on_loaded, self._on_failed = make, on_loaded, on_failed
        self.progress = 0.0
        self._thread: threading.Thread | None = None
        self._app: FastAPI | None = None
        self._before = self._waiting_room(settings, metrics)
        self._ending = asyncio.Event()

    @property
    def state(self) -> State:
        """The app's, once it is loaded."""
        return (self._app or self._before).state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            take_query_token(scope)
            await (self._app or self._before)(scope, receive, send)

    def _waiting_room(self, settings: ServeSettings, metrics: Metrics) -> FastAPI:
        """What answers as long as there is no app."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        add_error_handlers(app, metrics)

        @app.api_route("/health/live", methods=["GET", "HEAD"])
        async def live() -> dict[str, str]:
            return {"status": "live"}

        app.include_router(page.router)

        @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        async def refuse(path: str) -> None:
            raise self._refusal()

        @app.websocket("/{path:path}")
        async def refuse_socket(websocket: WebSocket, path: str) -> None:
            await websocket.send_denial_response(error_response(self._refusal()))

        put_before(app, settings, metrics)
        return app

    def _refusal(self) -> ServeError:
        message = f"the model is still being loaded ({self.progress:.0%}); try again soon"
        return ServeError(503, "loading", message, RETRY_S, self.progress)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start at once and load meanwhile; end the app with the server."""
        await receive()
        loading = asyncio.create_task(self._load())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._ending.set()
        if self._app is None:
            loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _load(self) -> None:
        try:
            app = await self._made()
            async with app.router.lifespan_context(app):
                self._app = app
                self._on_loaded()
                await self._ending.wait()
        except Exception as error:
            self._on_failed(error)

    def leave(self) -> None:
        """End the process while the app is still made: a thread in native code outlives nothing else well."""
        if self._thread is not None and self._thread.is_alive():
            end_process()

    def _made(self) -> asyncio.Future[FastAPI]:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[FastAPI] = loop.create_future()

        def tell(set_outcome: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(lambda: None if made.done() else set_outcome())

        def report(progress: float) -> None:
            self.progress = progress

        def work() -> None:
            try:
                app = self._make(report)
            except Exception as error:
                failure = error
                tell(lambda: made.set_exception(failure))
            else:
                tell(lambda: made.set_result(app))

        # Not one of asyncio's threads, which a process that ends would wait for.
        self._thread = threading.Thread(target=work, name="pyrf-load", daemon=True)
        self._thread.start()
        return made
