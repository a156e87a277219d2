"""The server below a path: whether the proxy keeps the path or strips it, all is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from websockets.sync.client import connect

from pyrf.serve.app import create_app
from pyrf.serve.settings import ServeSettings
from tests.support.running import PROMPT, Running, read

KEPT_OR_STRIPPED = pytest.mark.parametrize("path", ["/live", ""], ids=["kept", "stripped"])


@KEPT_OR_STRIPPED
def test_everything_is_found(serve: Callable[..., Running], path: str) -> None:
    server = serve(root_path="/live")
    http = server.http
    for name in ("/", "/static/app.js", "/docs", "/v1/model", "/health/live", "/metrics"):
        assert http.get(path + name).status_code == 200, name
    assert http.get(f"{path}/nothing").status_code == 404
    assert http.get("/livelier/v1/model").status_code == 404
    created = http.post(f"{path}/v1/sessions", json={"prompt": PROMPT}).json()
    url = f"{server.url.replace('http', 'ws')}{path}/v1/sessions/{created['id']}/ws"
    with connect(url, additional_headers={"Authorization": f"Bearer {created['token']}"}) as socket:
        assert read(socket).type == "hello"
        socket.send(json.dumps({"type": "close"}))


@KEPT_OR_STRIPPED
def test_the_pages_name_the_prefix(serve: Callable[..., Running], path: str) -> None:
    http = serve(root_path="/live").http
    page = http.get(f"{path}/")
    assert '<base href="/live/">' in page.text
    assert "base-uri 'self'" in page.headers["content-security-policy"]
    assert http.get(f"{path}/openapi.json").json()["servers"] == [{"url": "/live"}]
    docs = http.get(f"{path}/docs").text
    assert "'/live/openapi.json'" in docs
    script = docs.split('<script src="')[1].split('"')[0]
    assert script.startswith("/live/")
    assert http.get(script).status_code == 200
    assert http.get(script.removeprefix("/live")).status_code == 200


@KEPT_OR_STRIPPED
def test_redirects_stay_below_it(serve: Callable[..., Running], path: str) -> None:
    http = serve(root_path="/live").http
    redirect = http.get(f"{path}/docs/", headers={"Host": "localhost"})
    assert redirect.status_code == 307
    assert redirect.headers["location"] == "/live/docs"


def test_without_a_slash_at_the_end(serve: Callable[..., Running]) -> None:
    redirect = serve(root_path="/live").http.get("/live?x=1")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "/live/?x=1")


def test_a_plain_page_has_no_base(server: Running) -> None:
    page = server.http.get("/")
    assert "<base" not in page.text
    assert "base-uri 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("root_path", ["", "/live"])
def test_inside_another_app(pipe: Any, root_path: str) -> None:
    settings = ServeSettings(root_path=root_path, allowed_hosts=("testserver",))
    outer = FastAPI()
    outer.mount("/tools", create_app(lambda: pipe, model="random", settings=settings))
    client = TestClient(outer)
    page = client.get(f"/tools{root_path}/")
    assert f'<base href="/tools{root_path}/">' in page.text
    assert client.get(f"/tools{root_path}/static/app.js").status_code == 200
    assert client.get(f"/tools{root_path}/openapi.json").json()["servers"] == [{"url": f"/tools{root_path}"}]
