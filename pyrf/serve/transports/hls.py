"""HLS of a running session: a live playlist and its newest segments, for any number of players."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response

from pyrf.protocol import ErrorBody
from pyrf.serve.errors import ServeError
from pyrf.serve.security import find_watched
from pyrf.serve.state import TheServer
from pyrf.serve.transports.playlists import BEGINNING, LivePlaylist

FIRST_S = 20.0
"""Seconds that the first player waits for the first segment."""
PLAYLIST, MEDIA_TYPE = "live.m3u8", "application/vnd.apple.mpegurl"
_SEGMENT = re.compile(r"(\d{1,9})\.m4s")
HEADERS = {"Cross-Origin-Resource-Policy": "cross-origin"}
"""Pages of any site may play it: whoever has the address may watch."""

router = APIRouter()


_REPLIES: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPE: {}, "video/mp4": {}}},
    **{status: {"model": ErrorBody} for status in (404, 429)},
}


@router.get(
    "/v1/sessions/{id}/watch/{key}/hls/{name}",
    response_class=Response,
    responses=_REPLIES,
)
async def hls(id: str, key: str, name: str, request: Request, server: TheServer) -> Response:
    """Watch a session as HLS: `live.m3u8`, and the files that it names."""
    playlist = server.playlists.find(id, key)
    if playlist is None:
        session = find_watched(server, request.scope, id, key)
        if name != PLAYLIST:
            raise _no_file()
        server.registry.check_watchers(session)
        model = server.registry.model_of(session).pipe.model
        playlist = server.playlists.begin(session, model.frames_in_chunk / model.fps)
    playlist.touch()
    if name == PLAYLIST:
        return Response(await _playlist(playlist), headers=HEADERS, media_type=MEDIA_TYPE)
    match = _SEGMENT.fullmatch(name)
    found = [one.data for one in playlist.segments if match and one.number == int(match[1])]
    if name == BEGINNING and playlist.init:
        found = [playlist.init]
    if not found:
        raise _no_file()
    return Response(found[0], headers=HEADERS, media_type="video/mp4")


async def _playlist(playlist: LivePlaylist) -> str:
    """The text, once there is something to play."""
    with suppress(TimeoutError):
        await asyncio.wait_for(playlist.begun.wait(), FIRST_S)
    if not playlist.segments:
        raise ServeError(503, "preparing", "there is no video yet, or the session is paused; try again", 1.0)
    return playlist.text()


def _no_file() -> ServeError:
    return ServeError(404, "not_found", "there is no such segment, or no longer; load the playlist anew")
