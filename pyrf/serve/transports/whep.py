"""WHEP (draft-ietf-wish-whep): players post an SDP offer to one address and watch a session over WebRTC.

Each player is a watcher, and a session may have some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from pyrf.protocol import MAX_SDP, ErrorBody, IceServer
from pyrf.serve.address import client_address
from pyrf.serve.errors import ServeError
from pyrf.serve.ice import parse_ice_server
from pyrf.serve.security import Bearer, find_session, find_watched
from pyrf.serve.sessions.session import Session
from pyrf.serve.state import ServerState, TheServer

OFFER, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
"""Media types of what players send."""

router = APIRouter(prefix="/v1/sessions/{id}")


@dataclass(frozen=True)
class Shown:
    """What a player asks for, and by what it was let in.

    Attributes:
        session: to be watched.
        is_owner: whether it showed the session's token, and not the key to watch.
    """

    session: Session
    is_owner: bool


def _owned(id: str, token: Bearer, request: Request, server: TheServer) -> Shown:
    return Shown(find_session(server, request.scope, id, token), True)


def _watched(id: str, key: str, request: Request, server: TheServer) -> Shown:
    return Shown(find_watched(server, request.scope, id, key), False)


Owned = Annotated[Shown, Depends(_owned)]
Watched = Annotated[Shown, Depends(_watched)]
IfMatch = Annotated[str | None, Header()]


def _replies(status: int, *errors: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": "Done."}, **{error: {"model": ErrorBody} for error in errors}}


def _takes(media_type: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string"}}}}}


_OFFERED = {
    201: {"description": "The answer.", "content": {OFFER: {"schema": {"type": "string"}}}},
    **{status: {"model": ErrorBody} for status in (400, 404, 413, 415, 422, 429)},
}
_PATCHED, _STOPPED = _replies(204, 400, 404, 412, 413, 415, 422, 429), _replies(204, 404, 429)
_POST: dict[str, Any] = {
    "status_code": 201,
    "response_class": Response,
    "responses": _OFFERED,
    "openapi_extra": _takes(OFFER),
}
_PATCH: dict[str, Any] = {"status_code": 204, "responses": _PATCHED, "openapi_extra": _takes(FRAGMENT)}
_DELETE: dict[str, Any] = {"status_code": 204, "response_model": None, "responses": _STOPPED}


@router.post("/whep", **_POST)
async def play(shown: Owned, request: Request, server: TheServer) -> Response:
    """WHEP: answer a player's SDP offer. It shows the token of the session."""
    return await _begin(shown, request, server)


@router.post("/watch/{key}/whep", **_POST)
async def watch(shown: Watched, request: Request, server: TheServer) -> Response:
    """WHEP with the key to watch in the address, for players that know nothing but an address."""
    return await _begin(shown, request, server)


@router.patch("/whep/{player}", **_PATCH)
async def trickle(
    player: str, shown: Owned, request: Request, server: TheServer, if_match: IfMatch = None
) -> Response:
    """WHEP: take ICE candidates that the offer did not name."""
    return await _add(shown, player, if_match, request, server)


@router.patch("/watch/{key}/whep/{player}", **_PATCH)
async def watch_trickle(
    player: str, shown: Watched, request: Request, server: TheServer, if_match: IfMatch = None
) -> Response:
    """WHEP: take ICE candidates that the offer did not name."""
    return await _add(shown, player, if_match, request, server)


@router.delete("/whep/{player}", **_DELETE)
async def stop(player: str, shown: Owned, server: TheServer) -> None:
    """WHEP: end a player's connection."""
    await server.players.find(shown.session, player).peer.close()


@router.delete("/watch/{key}/whep/{player}", **_DELETE)
async def watch_stop(player: str, shown: Watched, server: TheServer) -> None:
    """WHEP: end a player's connection."""
    await server.players.find(shown.session, player).peer.close()


@router.options("/whep", include_in_schema=False)
@router.options("/watch/{key}/whep", include_in_schema=False)
async def options() -> Response:
    """What a player may post."""
    return Response(status_code=204, headers={"Allow": "POST, OPTIONS", "Accept-Post": OFFER})


async def _begin(shown: Shown, request: Request, server: ServerState) -> Response:
    if shown.is_owner:
        server.registry.check_controls(shown.session)
    sdp = await _text(request, OFFER)
    host = request.client.host if request.client else ""
    id, playing, answer = await server.players.begin(shown.session, sdp, client_address(request.scope), host)
    headers = {
        "Location": f"{request.url.path}/{id}",
        "ETag": playing.etag,
        "Accept-Patch": FRAGMENT,
    }
    named = [parse_ice_server(text) for text in server.settings.ice_servers]
    if links := list(ice_links(named, with_passwords=shown.is_owner)):
        headers["Link"] = ", ".join(links)
    return Response(answer, 201, headers, media_type=OFFER)


async def _add(
    shown: Shown, player: str, if_match: str | None, request: Request, server: ServerState
) -> Response:
    playing = server.players.find(shown.session, player)
    if if_match not in (None, "*", playing.etag):
        raise ServeError(412, "wrong_version", "If-Match is not the ETag that came with the answer")
    fragment = await _text(request, FRAGMENT)
    await server.players.peers.add_candidates(
        playing.peer, fragment, request.client.host if request.client else ""
    )
    return Response(status_code=204, headers={"ETag": playing.etag})


async def _text(request: Request, media_type: str) -> str:
    """A body of this type.

    Raises:
        ServeError: 415 for another type, 400 and 422 for what is no text or too long.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media_type:
        message = f"the body must be {media_type}, got {given[:60] or 'nothing'}"
        raise ServeError(415, "unsupported_type", message)
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise ServeError(400, "bad_request", "the body is not UTF-8") from None
    if len(text) > MAX_SDP:
        raise ServeError(422, "bad_offer", f"a description may have {MAX_SDP} characters, got {len(text)}")
    return text


def ice_links(servers: Iterable[IceServer], *, with_passwords: bool) -> Iterator[str]:
    """ICE servers as WHEP tells them. Whoever has but the address to watch is told no passwords."""
    for server in servers:
        link = f'<{server.urls}>; rel="ice-server"'
        if server.username is None:
            yield link
        elif with_passwords and f"{server.username}{server.credential}".isascii():
            link += f"; username={_quoted(server.username)}; credential={_quoted(server.credential or '')}"
            yield f'{link}; credential-type="password"'


def _quoted(text: str) -> str:
    escaped = "".join(f"\\{one}" if one in '"\\' else one for one in text if one.isprintable())
    return f'"{escaped}"'
