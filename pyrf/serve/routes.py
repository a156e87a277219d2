"""HTTP: sessions and their controls, clips, and what operators ask."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from pyrf.protocol import (
    AdaptersMessage,
    AdaptersReply,
    AdaptersRequest,
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
from pyrf.serve.address import client_address
from pyrf.serve.errors import ServeError
from pyrf.serve.security import Bearer, find_session, require_metrics_token, require_token
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.timelines import MAX_NOTICES, placed_timeline, timeline_notices
from pyrf.serve.state import TheServer
from pyrf.serve.transports.clips import ClipResponse, stream_clip

router = APIRouter(prefix="/v1")
operations = APIRouter(tags=["operations"])


def _session(id: str, token: Bearer, request: Request, server: TheServer) -> Session:
    return find_session(server, request.scope, id, token)


TheSession = Annotated[Session, Depends(_session)]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}


_ADMISSION = _errors(400, 401, 413, 422, 429, 503)
_OWNED = _errors(404, 429)
_CONTROL = _errors(400, 404, 413, 422, 429)


@router.get(
    "/model",
    responses=_errors(401, 429),
    response_model_exclude_none=True,  # a browser takes no null for the name of an ICE server's user
    dependencies=[Depends(require_token)],
)
async def model_info(server: TheServer) -> ServerInfo:
    """What is served, and its limits."""
    return server.registry.info()


@router.post("/sessions", status_code=201, responses=_ADMISSION, dependencies=[Depends(require_token)])
async def create_session(body: SessionRequest, request: Request, server: TheServer) -> SessionCreated:
    """Begin a session. Its token opens all that is under its path; attach a viewer to go on."""
    session = await server.registry.create(body, client_address(request.scope))
    return SessionCreated(
        **session.info().model_dump(),
        token=session.token,
        warnings=server.registry.notices(body.prompt, session.size),
    )


@router.get("/sessions/{id}", responses=_OWNED)
async def session_info(session: TheSession) -> SessionInfo:
    """Where a session stands."""
    return session.info()


@router.delete("/sessions/{id}", status_code=204, responses=_OWNED)
async def close_session(session: TheSession) -> None:
    """End a session; its memory is freed within a chunk."""
    session.end("closed")


@router.post("/sessions/{id}/prompt", responses=_CONTROL)
async def set_prompt(body: PromptRequest, session: TheSession, server: TheServer) -> PromptReply:
    """Switch the prompt; of several before the same chunk the last one counts."""
    reply = server.registry.set_prompt(session, body.prompt, body.recache, body.over)
    session.announce(PromptMessage(**reply.model_dump()))
    return reply


@router.post("/sessions/{id}/adapters", responses={**_CONTROL, **_errors(409)})
async def set_adapters(body: AdaptersRequest, session: TheSession, server: TheServer) -> AdaptersReply:
    """Change strengths of adapters, at the next chunk."""
    reply = server.registry.set_adapters(session, body.strengths)
    session.announce(AdaptersMessage(**reply.model_dump()))
    return reply


@router.post("/sessions/{id}/pause", responses=_CONTROL)
async def pause(session: TheSession, server: TheServer) -> SessionInfo:
    """Make no further chunk; what is finished is still sent."""
    server.registry.check_controls(session)
    session.pause()
    return _announce_state(session)


@router.post("/sessions/{id}/resume", responses=_CONTROL)
async def resume(session: TheSession, server: TheServer) -> SessionInfo:
    """Go on after a pause."""
    server.registry.check_controls(session)
    session.resume()
    return _announce_state(session)


def _announce_state(session: Session) -> SessionInfo:
    session.announce(StateMessage(state=session.state, chunk=session.chunks_started))
    return session.info()


@router.post("/sessions/{id}/webrtc", responses=_CONTROL)
async def webrtc(body: Offer, session: TheSession, request: Request, server: TheServer) -> Answer:
    """Answer a WebRTC offer for one video track, and a data channel for controls if it has one."""
    server.registry.check_controls(session)
    return await server.peers.answer(
        session, body, client_address(request.scope), request.client.host if request.client else ""
    )


@router.post(
    "/videos",
    response_class=StreamingResponse,
    responses={200: {"content": {"video/mp4": {}}}, **_ADMISSION, **_errors(500)},
    dependencies=[Depends(require_token)],
)
async def create_video(body: VideoRequest, request: Request, server: TheServer) -> StreamingResponse:
    """A clip as fragmented MP4, sent while it is made; it counts as a session until then."""
    if body.num_frames > server.settings.max_video_frames:
        limit = server.settings.max_video_frames
        raise ServeError(422, "too_long", f"a clip may have {limit} frames, got {body.num_frames}")
    registry = server.registry
    timeline = placed_timeline(registry, body)
    options = body.model_dump(exclude={"num_frames", "timeline"})
    session = await registry.create(
        SessionRequest(**options, pace="max", grace_s=0.0),
        client_address(request.scope),
        is_clip=True,
        timeline=timeline,
    )
    made = registry.pipe.metadata(body.prompt, body.seed, timeline, registry.start_of(body))
    pieces = stream_clip(session, body.num_frames, server.encoder.executor, made)
    notices = registry.notices(body.prompt, session.size)
    if body.timeline:
        notices += await asyncio.to_thread(timeline_notices, registry, body)
    return ClipResponse(await anext(pieces), pieces, list(dict.fromkeys(notices))[:MAX_NOTICES])


@operations.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@operations.get("/health/ready", responses=_errors(503))
async def ready(server: TheServer) -> Response:
    """New sessions are taken, room given."""
    if server.registry.draining:
        raise ServeError(503, "shutting_down", "the server shuts down")
    return JSONResponse({"status": "ready"})


@operations.get("/metrics", responses=_errors(401, 429), dependencies=[Depends(require_metrics_token)])
async def metrics(server: TheServer) -> Response:
    """Figures for Prometheus."""
    return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
