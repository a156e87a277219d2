"""The server as an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from pyrf import __version__
from pyrf.endpoints.moderate import Moderate
from pyrf.serve import admin, page, routes
from pyrf.serve.errors import add_error_handlers
from pyrf.serve.handshake import CleanAddresses
from pyrf.serve.interface import EVERYWHERE, tell_limits
from pyrf.serve.keys.ring import Keyring
from pyrf.serve.metrics import Metrics
from pyrf.serve.models import ServedModel, ServedModels
from pyrf.serve.outside import put_before
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import ServerState
from pyrf.serve.transports import hls, websocket, whep
from pyrf.serve.transports.frames import FrameEncoder
from pyrf.serve.transports.kept import KeptClips
from pyrf.serve.transports.outputs import Outputs
from pyrf.serve.transports.players import Players
from pyrf.serve.transports.playlists import Playlists
from pyrf.serve.transports.webrtc import Peers

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

Load = Callable[[], "StreamingPipeline"]


def create_app(
    load: Load,
    *,
    model: str,
    others: Mapping[str, Load] | None = None,
    settings: ServeSettings | None = None,
    metrics: Metrics | None = None,
    moderate: Moderate | None = None,
) -> FastAPI:
    """The server of a pipeline, or of several that sessions choose from.

    Args:
        load: makes the pipeline; called when the app starts.
        model: its name, for people.
        others: what makes further pipelines, by their names; a session that names none has the first.
        settings: limits and policies.
        metrics: where what happens is counted.
        moderate: in place of the API of the settings; called in threads, up to four at a time.

    Returns:
        An app whose `state.server` is its `ServerState` while it runs. It starts once all are loaded.

    Raises:
        ValueError: when two pipelines have one name.
    """
    loads = {model: load, **(others or {})}
    if others and model in others:
        raise ValueError(f"two models are called {model!r}; give each a name of its own")
    chosen, counted = settings or ServeSettings(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keyring = Keyring(chosen)
        made = [ServedModel(name, await asyncio.to_thread(one), chosen) for name, one in loads.items()]
        registry = SessionRegistry(ServedModels(made), chosen, counted, moderate, keyring)
        encoder, peers = FrameEncoder(chosen.jpeg_quality), Peers(registry)
        clips = KeptClips(chosen)
        players, playlists, outputs = Players(peers), Playlists(encoder.executor), Outputs(chosen)
        app.state.server = ServerState(
            registry, encoder, peers, players, playlists, outputs, chosen, counted, clips, keyring
        )
        watching = asyncio.create_task(keyring.watch(registry.end_revoked))
        try:
            await registry.warm_up()
            yield
        finally:
            watching.cancel()
            await registry.close()
            await asyncio.gather(peers.close(), outputs.close())
            playlists.close()
            encoder.close()
            clips.close()

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
    app.include_router(admin.router, responses=EVERYWHERE)
    app.include_router(whep.router, responses=EVERYWHERE)
    app.include_router(hls.router, responses=EVERYWHERE)
    app.include_router(routes.operations, responses=EVERYWHERE)
    tell_limits(app, chosen)
    app.include_router(websocket.router)
    app.include_router(page.router)
    put_before(app, chosen, counted)
    return app
