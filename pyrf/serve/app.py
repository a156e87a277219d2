"""The server as an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from pyrf import __version__
from pyrf.serve import page, routes
from pyrf.serve.errors import add_error_handlers
from pyrf.serve.handshake import CleanAddresses
from pyrf.serve.interface import EVERYWHERE, tell_limits
from pyrf.serve.metrics import Metrics
from pyrf.serve.outside import put_before
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import ServerState
from pyrf.serve.transports import websocket
from pyrf.serve.transports.frames import FrameEncoder
from pyrf.serve.transports.webrtc import Peers

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

Load = Callable[[], "StreamingPipeline"]


def create_app(
    load: Load, *, model: str, settings: ServeSettings | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The server of one pipeline.

    Args:
        load: makes the pipeline; called when the app starts.
        model: its name, for people.
        settings: limits and policies.
        metrics: where what happens is counted.

    Returns:
        An app whose `state.server` is its `ServerState` while it runs.
    """
    chosen, counted = settings or ServeSettings(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        registry = SessionRegistry(await asyncio.to_thread(load), model, chosen, counted)
        encoder, peers = FrameEncoder(chosen.jpeg_quality), Peers(registry)
        app.state.server = ServerState(registry, encoder, peers, chosen, counted)
        try:
            await registry.warm_up()
            yield
        finally:
            await registry.close()
            await peers.close()
            encoder.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="pyrf",
        version=__version__,
        summary="Streams video from text, in real time.",
        description="Frames travel over WebSocket or WebRTC; docs/serving.md has their messages.",
        lifespan=lifespan,
    )
    app.__class__ = type("StreamingApp", (CleanAddresses, type(app)), {})
    add_error_handlers(app, counted)
    app.include_router(routes.router, responses=EVERYWHERE)
    app.include_router(routes.operations, responses=EVERYWHERE)
    tell_limits(app, chosen)
    app.include_router(websocket.router)
    app.include_router(page.router)
    put_before(app, chosen, counted)
    return app
