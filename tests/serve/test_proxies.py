"""The configurations of docs/deploy.md, run: the page, a stream, a clip and /docs through nginx and Caddy."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from websockets.sync.client import connect

from pyrf.commands.serve import FLAGGED
from pyrf.serve.server import bind
from pyrf.serve.settings import ServeSettings
from pyrf.serve.unix import unix_socket
from tests.support.certificates import write_certificate
from tests.support.running import PROMPT, ROOMY, TIMEOUT, Running, read, read_frames

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
SITE = re.compile(
    r"^## (.+?)\n+ {4}(pyrf serve [^\n]+)\n+```(nginx|caddy)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
NAME = "video.example"
SITES = SITE.findall(PAGE.read_text())
NGINX = """
daemon off;
pid {folder}/nginx.pid;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
    storage file_system {folder}
}}
{site}
"""
BINARIES = {
    "nginx": shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"),
    "caddy": shutil.which("caddy"),
}


def test_the_page_has_them() -> None:
    assert [kind for _, _, kind, _ in SITES] == ["nginx", "nginx", "caddy", "caddy"]


@dataclass(frozen=True)
class Site:
    """A running proxy, and who asks it.

    Attributes:
        base: the path below which the server stands.
    """

    server: Running
    port: int
    base: str
    tls: ssl.SSLContext

    @property
    def origin(self) -> str:
        return f"https://{NAME}:{self.port}"

    def ask(self, method: str, path: str, *, source: str = "127.0.0.1", **options: Any) -> httpx.Response:
        """A request from an address of this machine."""
        transport = httpx.HTTPTransport(verify=self.tls, local_address=source)
        headers = {"Host": f"{NAME}:{self.port}", **options.pop("headers", {})}
        with httpx.Client(transport=transport, timeout=TIMEOUT) as http:
            url = f"https://127.0.0.1:{self.port}{path}"
            return http.request(method, url, headers=headers, extensions={"sni_hostname": NAME}, **options)


def settings_of(command: str) -> tuple[ServeSettings, bool]:
    """What the command of the page means, and whether it is for a Unix socket."""
    words = iter(shlex.split(command)[2:])
    fields = {field.metadata["flag"].name: field for field in FLAGGED.values()}
    given: dict[str, Any] = {**ROOMY, "creates_per_minute": 1.0}
    unix = False
    for flag in words:
        value = next(words)
        unix |= flag == "--uds"
        if flag in fields:
            many = isinstance(fields[flag].default, tuple)
            given[fields[flag].name] = (value,) if many else value
    return ServeSettings(**given), unix


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def proxied(kind: str, config: str, port: int, folder: Path) -> Iterator[None]:
    """A proxy with this configuration, once it takes connections."""
    binary = BINARIES[kind]
    assert binary is not None
    file = folder / f"{kind}.conf"
    file.write_text(config)
    if kind == "nginx":
        command = [binary, "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")]
    else:
        command = [binary, "run", "--config", str(file), "--adapter", "caddyfile"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **home}) as process:
        try:
            until = time.monotonic() + TIMEOUT
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < until
                    time.sleep(0.02)
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=SITES, ids=[title for title, *_ in SITES])
def site(
    request: pytest.FixtureRequest, pipe: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    _, command, kind, config = request.param
    if BINARIES[kind] is None:
        pytest.skip(f"no {kind}: apt-get install {kind}")
    folder = tmp_path_factory.mktemp("site")
    settings, unix = settings_of(command)
    certfile, keyfile = write_certificate(folder, NAME)
    port = free_port()
    with ExitStack() as stack:
        place = folder / "pyrf.sock"
        sock = stack.enter_context(unix_socket(str(place))) if unix else bind("127.0.0.1", 0)
        server = stack.enter_context(Running(pipe, settings, sock=sock))
        changes = {
            "/etc/ssl/video.example.pem": str(certfile),
            "/etc/ssl/video.example.key": str(keyfile),
            "/run/pyrf/pyrf.sock": str(place),
            "127.0.0.1:8000": server.url.removeprefix("http://"),
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "video.example {": f"https://{NAME}:{port} {{",
        }
        for old, new in changes.items():
            config = config.replace(old, new)
        user = "user root;" if os.getuid() == 0 else ""
        whole = (NGINX if kind == "nginx" else CADDY).format(folder=folder, user=user, site=config)
        stack.enter_context(proxied(kind, whole, port, folder))
        tls = ssl.create_default_context(cafile=str(certfile))
        yield Site(server, port, settings.root_path, tls)


def test_the_page_and_its_files(site: Site) -> None:
    page = site.ask("GET", f"{site.base}/")
    assert page.status_code == 200
    for link in re.findall(r'(?:href|src)="(static/[^"]+)"', page.text):
        assert site.ask("GET", f"{site.base}/{link}").status_code == 200, link
    if site.base:
        moved = site.ask("GET", site.base)
        assert moved.status_code == 308
        assert httpx.URL(moved.headers["location"]).path == f"{site.base}/"
        assert b"pyrf" not in site.ask("GET", "/").content  # it is another service's


def test_the_openapi_page(site: Site) -> None:
    docs = site.ask("GET", f"{site.base}/docs")
    script = docs.text.split('<script src="')[1].split('"')[0]
    schema = docs.text.split("url: '")[1].split("'")[0]
    assert site.ask("GET", script).status_code == 200
    assert "/v1/sessions" in site.ask("GET", schema).json()["paths"]
    assert site.ask("GET", f"{site.base}/docs/").headers["location"] == f"{site.base}/docs"


def test_a_stream(site: Site) -> None:
    page = {"Origin": site.origin}
    body = {"prompt": PROMPT}
    created = site.ask(
        "POST", f"{site.base}/v1/sessions", json=body, headers=page, source="127.0.0.11"
    ).json()
    url = f"wss://{NAME}:{site.port}{site.base}/v1/sessions/{created['id']}/ws"
    headers = {"Authorization": f"Bearer {created['token']}", **page}
    wire = socket.create_connection(("127.0.0.1", site.port))
    with connect(url, sock=wire, ssl=site.tls, additional_headers=headers, open_timeout=TIMEOUT) as viewer:
        assert read(viewer).type == "hello"
        assert len(read_frames(viewer, 20)) == 20
        viewer.send('{"type": "close"}')


def test_a_clip(site: Site) -> None:
    body = {"prompt": PROMPT, "num_frames": 21}
    clip = site.ask("POST", f"{site.base}/v1/videos", json=body, source="127.0.0.12")
    assert clip.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(clip.content), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 21


def test_rates_count_the_client(site: Site) -> None:
    """Neither all clients together, nor what a client says it is."""

    def create(source: str, **headers: str) -> int:
        path = f"{site.base}/v1/sessions"
        response = site.ask("POST", path, json={"prompt": PROMPT}, source=source, headers=headers)
        if response.status_code == 201:
            site.server.delete(response.json())
        return response.status_code

    assert create("127.0.0.21") == 201
    assert create("127.0.0.22") == 201
    assert create("127.0.0.21") == 429
    assert create("127.0.0.22", **{"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}) == 429


def test_foreign_pages_and_names(site: Site) -> None:
    path = f"{site.base}/v1/model"
    assert site.ask("GET", path, headers={"Origin": site.origin}).status_code == 200
    for origin in ("https://evil.example", f"http://{NAME}:{site.port}", f"https://{NAME}"):
        assert site.ask("GET", path, headers={"Origin": origin}).status_code == 403, origin
    foreign = site.ask("GET", path, headers={"Host": f"evil.example:{site.port}"})
    assert foreign.status_code != 200 or foreign.content == b""  # Caddy has nothing under that name


def test_the_page_in_a_browser(site: Site) -> None:
    playwright = pytest.importorskip("playwright", reason="the page is tested with playwright")
    assert playwright
    from tests.support.browser import Visit, chromium, find_chromium

    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with chromium(f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as browser:
        visit = Visit(browser, f"{site.origin}{site.base}/", ignore_https_errors=True)
        visit.start(PROMPT)
        visit.until("document.getElementById('canvas').dataset.frame > 10")
        assert visit.problems == []
        assert all(url.startswith((f"{site.origin}{site.base}/", "blob:")) for url in visit.requested)
        visit.page.click("#stop")
        visit.await_state("ended", "idle")
        visit.close()
