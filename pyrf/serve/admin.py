"""HTTP: what only the keys of admins open."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends

from pyrf.protocol import AdminSessions, ErrorBody
from pyrf.serve.security import require_admin
from pyrf.serve.state import ServerState, TheServer

logger = logging.getLogger(__name__)

router = APIRouter(
    prefix="/v1/admin",
    tags=["admin"],
    dependencies=[Depends(require_admin)],
    responses={401: {"model": ErrorBody}, 429: {"model": ErrorBody}},
)


@router.get("/sessions")
async def admin_sessions(server: TheServer) -> AdminSessions:
    """All live sessions, whoever began them."""
    return _overview(server)


@router.delete("/sessions/{id}", status_code=204, response_model=None, responses={404: {"model": ErrorBody}})
async def admin_end(id: str, server: TheServer) -> None:
    """End a session of whomever; its viewer is told that it was closed."""
    server.registry.live.end(id)


@router.post("/drain")
async def drain(server: TheServer) -> AdminSessions:
    """Take no new sessions; those that run go on, and the server is not ready."""
    return _set_closed(server, True)


@router.post("/undrain")
async def undrain(server: TheServer) -> AdminSessions:
    """Take new sessions again."""
    return _set_closed(server, False)


def _set_closed(server: ServerState, closed: bool) -> AdminSessions:
    server.registry.admission.closed_to_new = closed
    overview = _overview(server)
    event = "closed to new sessions" if closed else "open to new sessions"
    logger.info(event, extra={"sessions": len(overview.sessions)})
    return overview


def _overview(server: ServerState) -> AdminSessions:
    admission = server.registry.admission
    return AdminSessions(
        draining=admission.ending or admission.closed_to_new, sessions=server.registry.overview()
    )
