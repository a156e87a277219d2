"""HTTP: sessions and their controls, clips, and what operators ask."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from pyrf.protocol import (
    AdaptersMessage,
    AdaptersReply,
    AdaptersRequest,
    Answer,
    ErrorBody,
    ModelList,
    ModelName,
    Offer,
    OutputInfo,
    OutputList,
    OutputRequest,
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
from pyrf.serve.envelope import IS_HEAD
from pyrf.serve.errors import ServeError
from pyrf.serve.security import Bearer, TheKey, find_session, find_watched, require_key, require_metrics_key
from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.timelines import MAX_NOTICES, placed_timeline, texts_of_timeline, timeline_notices
from pyrf.serve.state import TheServer
from pyrf.serve.transports.clips import ClipResponse, stream_clip
from pyrf.serve.transports.mjpeg import HEADERS, MEDIA_TYPE, MjpegResponse

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
    responses=_errors(401, 422, 429),
    response_model_exclude_none=True,  # a browser takes no null for the name of an ICE server's user
    dependencies=[Depends(require_key)],
)
async def model_info(server: TheServer, model: ModelName = None) -> ServerInfo:
    """What is served, and its limits: the default model, or the one that is named."""
    return server.registry.info(model)


@router.get("/models", responses=_errors(401, 429), dependencies=[Depends(require_key)])
async def models(server: TheServer) -> ModelList:
    """The models that sessions and clips may choose from, the default one first."""
    return server.registry.models.summaries()


@router.post("/sessions", status_code=201, responses=_ADMISSION)
async def create_session(
    body: SessionRequest, request: Request, server: TheServer, key: TheKey
) -> SessionCreated:
    """Begin a session. Its token opens all that is under its path; attach a viewer to go on."""
    session, given = await server.registry.create(body, client_address(request.scope), key=key)
    return SessionCreated(
        **session.info().model_dump(),
        token=session.token,
        watch=f"/v1/sessions/{session.id}/watch/{session.watch_key}",
        warnings=[*given.warnings, *server.registry.model_of(session).notices(given.prompt, session.size)],
        expanded=given.expanded,
    )


@router.get("/sessions/{id}", responses=_OWNED)
async def session_info(session: TheSession) -> SessionInfo:
    """Where a session stands."""
    return session.info()


# FastAPI 0.115 takes a `-> None` that is a string, as all are here, for a model; so there is said to be none.
@router.delete("/sessions/{id}", status_code=204, response_model=None, responses=_OWNED)
async def close_session(session: TheSession) -> None:
    """End a session; its memory is freed within a chunk."""
    session.end("closed")


@router.post("/sessions/{id}/prompt", responses=_CONTROL)
async def set_prompt(body: PromptRequest, session: TheSession, server: TheServer) -> PromptReply:
    """Switch the prompt; of several before the same chunk the last one counts."""
    reply = await server.registry.set_prompt(session, body.prompt, body.recache, body.over)
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


@router.get(
    "/sessions/{id}/watch/{key}/frames.mjpeg",
    response_class=StreamingResponse,
    responses={200: {"content": {"multipart/x-mixed-replace": {}}}, **_OWNED},
)
async def watch_jpegs(id: str, key: str, request: Request, server: TheServer) -> Response:
    """Watch a session as JPEGs in one reply without an end, as an `<img>` shows it."""
    session = find_watched(server, request.scope, id, key)
    server.registry.check_watchers(session)
    if request.scope.get(IS_HEAD):
        return Response(media_type=MEDIA_TYPE, headers=HEADERS)
    return MjpegResponse(session, server.encoder)


@router.post("/sessions/{id}/outputs", status_code=201, responses={**_CONTROL, **_errors(503)})
async def begin_output(body: OutputRequest, session: TheSession, server: TheServer) -> OutputInfo:
    """Send a session on to an address, or into a file, where the operator allows it."""
    server.registry.check_controls(session)
    server.registry.check_watchers(session)
    return await server.outputs.begin(session, body.target)


@router.get("/sessions/{id}/outputs", responses=_OWNED)
async def list_outputs(session: TheSession, server: TheServer) -> OutputList:
    """Where a session is sent on to."""
    return OutputList(outputs=server.outputs.list(session))


@router.delete("/sessions/{id}/outputs/{output}", status_code=204, response_model=None, responses=_OWNED)
async def stop_output(output: str, session: TheSession, server: TheServer) -> None:
    """End an output; what was sent is finished."""
    server.outputs.stop(session, output)


@router.post(
    "/videos",
    response_class=StreamingResponse,
    responses={200: {"content": {"video/mp4": {}}}, **_ADMISSION, **_errors(500)},
)
async def create_video(
    body: VideoRequest, request: Request, server: TheServer, key: TheKey
) -> StreamingResponse:
    """A clip as fragmented MP4, sent while it is made; it counts as a session until then."""
    if body.num_frames > server.settings.max_video_frames:
        limit = server.settings.max_video_frames
        raise ServeError(422, "too_long", f"a clip may have {limit} frames, got {body.num_frames}")
    registry = server.registry
    model = registry.models.find(body.model)
    timeline = placed_timeline(model, body, server.settings.max_prompt_chars)
    options = body.model_dump(exclude={"num_frames", "timeline"})
    session, given = await registry.create(
        SessionRequest(**options, pace="max", grace_s=0.0),
        client_address(request.scope),
        key=key,
        is_clip=True,
        timeline=timeline,
        later=texts_of_timeline(body),
    )
    made = model.pipe.metadata(given.prompt, body.seed, timeline, model.start_of(body))
    copy = server.clips.begin()
    pieces = stream_clip(session, body.num_frames, server.encoder.executor, made, server.clips, copy)
    notices = [*given.told, *model.notices(given.prompt, session.size)]
    if body.timeline:
        notices += await asyncio.to_thread(timeline_notices, model, body)
    place = f"/v1/videos/{copy.id}"
    return ClipResponse(await anext(pieces), pieces, place, list(dict.fromkeys(notices))[:MAX_NOTICES])


@router.get(
    "/videos/{id}",
    response_class=FileResponse,
    responses={
        200: {"content": {"video/mp4": {}}},
        206: {"description": "A part."},
        416: {"description": "It has no such part."},
        **_errors(404),
    },
)
async def kept_video(id: str, server: TheServer) -> FileResponse:
    """A finished clip again, for some minutes: all of it, or what a Range header asks for."""
    path = server.clips.find(id)
    if path is None:
        raise ServeError(404, "not_found", "there is no such clip, or not yet, or no longer")
    return FileResponse(path, media_type="video/mp4")


@operations.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@operations.get("/health/ready", responses=_errors(503))
async def ready(server: TheServer) -> Response:
    """New sessions are taken, room given."""
    server.registry.admission.check_open()
    return JSONResponse({"status": "ready"})


@operations.get("/metrics", responses=_errors(401, 429), dependencies=[Depends(require_metrics_key)])
async def metrics(server: TheServer) -> Response:
    """Figures for Prometheus."""
    return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
