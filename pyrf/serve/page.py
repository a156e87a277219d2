"""The page at `/`: static files of this package, under a policy that lets it load nothing from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from pyrf.serve.errors import ServeError

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = "Content-Security-Policy"
HEADERS = {
    POLICY: "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)
_names = frozenset(path.name for path in FOLDER.iterdir())


@router.get("/")
async def page(request: Request) -> Response:
    """The page. Below a prefix it says so, as the browser may have asked without a slash at the end."""
    root = request.scope.get("root_path", "")
    if not root:
        return _file("index.html")
    html = (FOLDER / "index.html").read_text()
    base = f'<base href="{escape(root)}/">'
    headers = {**HEADERS, POLICY: HEADERS[POLICY].replace("base-uri 'none'", "base-uri 'self'")}
    return HTMLResponse(html.replace("<head>", f"<head>\n  {base}", 1), headers=headers)


@router.get("/static/{name}")
async def static_file(name: str) -> FileResponse:
    """What the page loads."""
    if name not in _names:
        raise ServeError(404, "not_found", "there is no such file")
    return _file(name)


def _file(name: str) -> FileResponse:
    path = FOLDER / name
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=HEADERS)
