"""The page at `/`: static files of this package, under a policy that lets it load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from pyrf.serve.errors import ServeError

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)
_names = frozenset(path.name for path in FOLDER.iterdir())


@router.get("/")
async def page() -> FileResponse:
    """The page."""
    return _file("index.html")


@router.get("/static/{name}")
async def static_file(name: str) -> FileResponse:
    """What the page loads."""
    if name not in _names:
        raise ServeError(404, "not_found", "there is no such file")
    return _file(name)


def _file(name: str) -> FileResponse:
    path = FOLDER / name
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=HEADERS)
