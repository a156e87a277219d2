"""The server as an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from pyrf import __version__
from pyrf.protocol import (
    Answer,
    ErrorBody,
    Offer,
    PromptMessage,
    PromptReply,
    PromptRequest,
    ServerInfo,
    SessionCreated,
    SessionInfo,
    SessionRequest,
    StateMessage,
    VideoRequest,
)
from pyrf.serve import page
from pyrf.serve.errors import ServeError, add_error_handlers
from pyrf.serve.security import Bearer, Guard, require_token
from pyrf.serve.sessions.registry import SessionRegistry
from pyrf.serve.sessions.session import Session
from pyrf.serve.settings import ServeSettings
from pyrf.serve.transports import websocket
from pyrf.serve.transports.clips import ClipResponse, stream_clip
from pyrf.serve.transports.frames import FrameEncoder
from pyrf.serve.transports.webrtc import Peers

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

Load = Callable[[], "StreamingPipeline"]

router = APIRouter(prefix="/v1")


def create_app(load: Load, *, model: str, settings: ServeSettings | None = None) -> FastAPI:
    """The server of one pipeline.

    Args:
        load: makes the pipeline; called when the app starts.
        model: its name, for people.
        settings: limits and policies.

    Returns:
        An app whose `state.registry` is the `SessionRegistry` while it runs.
    """
    chosen = settings or ServeSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        registry = app.state.registry = SessionRegistry(await asyncio.to_thread(load), model, chosen)
        app.state.encoder, app.state.peers = FrameEncoder(chosen.jpeg_quality), Peers(registry)
        try:
            await registry.warm_up()
            yield
        finally:
            await registry.close()
            await app.state.peers.close()
            app.state.encoder.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="pyrf",
        version=__version__,
        summary="Streams video from text, in real time.",
        description="Frames travel over WebSocket or WebRTC; docs/serving.md has their messages.",
        lifespan=lifespan,
    )
    app.state.settings = chosen
    app.state.count_refusal = lambda code: app.state.registry.metrics.refused.labels(code).inc()
    add_error_handlers(app)
    app.include_router(router)
    app.include_router(operations)
    app.include_router(websocket.router)
    app.include_router(page.router)
    app.add_middleware(Guard, settings=chosen)
    if chosen.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=chosen.origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _registry(request: Request) -> SessionRegistry:
    registry: SessionRegistry = request.app.state.registry
    return registry


def _session(id: str, token: Bearer, registry: Annotated[SessionRegistry, Depends(_registry)]) -> Session:
    return registry.find(id, token)


TheRegistry = Annotated[SessionRegistry, Depends(_registry)]
TheSession = Annotated[Session, Depends(_session)]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}


_ADMISSION = _errors(400, 401, 413, 422, 429, 503)
_OWNED = _errors(404)
_CONTROL = _errors(400, 404, 413, 422, 429)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


@router.get(
    "/model",
    responses=_errors(401),
    response_model_exclude_none=True,  # a browser takes no null for the name of an ICE server's user
    dependencies=[Depends(require_token)],
)
async def model_info(registry: TheRegistry) -> ServerInfo:
    """What is served, and its limits."""
    return registry.info()


@router.post("/sessions", status_code=201, responses=_ADMISSION, dependencies=[Depends(require_token)])
async def create_session(body: SessionRequest, request: Request, registry: TheRegistry) -> SessionCreated:
    """Begin a session. Its token opens all that is under its path; attach a viewer to go on."""
    session = registry.create(body, _address(request))
    return SessionCreated(**session.info().model_dump(), token=session.token)


@router.get("/sessions/{id}", responses=_OWNED)
async def session_info(session: TheSession) -> SessionInfo:
    """Where a session stands."""
    return session.info()


@router.delete("/sessions/{id}", status_code=204, responses=_OWNED)
async def close_session(session: TheSession) -> None:
    """End a session; its memory is freed within a chunk."""
    session.end("closed")


@router.post("/sessions/{id}/prompt", responses=_CONTROL)
async def set_prompt(body: PromptRequest, session: TheSession, registry: TheRegistry) -> PromptReply:
    """Switch the prompt; of several before the same chunk the last one counts."""
    reply = registry.set_prompt(session, body.prompt, body.recache)
    session.announce(PromptMessage(prompt_id=reply.prompt_id, chunk=reply.chunk))
    return reply


@router.post("/sessions/{id}/pause", responses=_CONTROL)
async def pause(session: TheSession, registry: TheRegistry) -> SessionInfo:
    """Make no further chunk; what is finished is still sent."""
    registry.check_controls(session)
    session.pause()
    return _announce_state(session)


@router.post("/sessions/{id}/resume", responses=_CONTROL)
async def resume(session: TheSession, registry: TheRegistry) -> SessionInfo:
    """Go on after a pause."""
    registry.check_controls(session)
    session.resume()
    return _announce_state(session)


def _announce_state(session: Session) -> SessionInfo:
    session.announce(StateMessage(state=session.state, chunk=session.chunks_started))
    return session.info()


@router.post("/sessions/{id}/webrtc", responses=_CONTROL)
async def webrtc(body: Offer, session: TheSession, registry: TheRegistry, request: Request) -> Answer:
    """Answer a WebRTC offer for one video track, and a data channel for controls if it has one."""
    registry.check_controls(session)
    peers: Peers = request.app.state.peers
    return await peers.answer(session, body)


@router.post(
    "/videos",
    response_class=StreamingResponse,
    responses={200: {"content": {"video/mp4": {}}}, **_ADMISSION},
    dependencies=[Depends(require_token)],
)
async def create_video(body: VideoRequest, request: Request, registry: TheRegistry) -> StreamingResponse:
    """A clip as fragmented MP4, sent while it is made; it counts as a session until then."""
    if body.num_frames > registry.settings.max_video_frames:
        limit = registry.settings.max_video_frames
        raise ServeError(422, "too_long", f"a clip may have {limit} frames, got {body.num_frames}")
    options = body.model_dump(exclude={"num_frames"})
    session = registry.create(SessionRequest(**options, pace="max", grace_s=0.0), _address(request))
    pieces = stream_clip(session, body.num_frames, request.app.state.encoder.executor)
    return ClipResponse(await anext(pieces), pieces)


operations = APIRouter(tags=["operations"])


@operations.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@operations.get("/health/ready", responses=_errors(503))
async def ready(registry: TheRegistry) -> Response:
    """New sessions are taken, room given."""
    if registry.draining:
        raise ServeError(503, "shutting_down", "the server shuts down")
    return JSONResponse({"status": "ready"})


@operations.get("/metrics", responses=_errors(401), dependencies=[Depends(require_token)])
async def metrics(registry: TheRegistry) -> Response:
    """Figures for Prometheus."""
    return Response(registry.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
