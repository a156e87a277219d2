"""A server on a Unix socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import unix_connect

from pyrf.serve.settings import ServeSettings
from pyrf.serve.unix import unix_socket
from tests.support.running import PROMPT, ROOMY, TIMEOUT, Running, read


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "pyrf.sock"


def test_only_the_group_may_connect(place: Path) -> None:
    before = os.umask(0)
    try:
        with unix_socket(str(place)):
            assert stat.S_IMODE(place.stat().st_mode) == 0o660
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not place.exists()


def test_a_dead_socket_is_replaced(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(place))
    with unix_socket(str(place)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


def test_a_live_server_is_left_alone(place: Path) -> None:
    with unix_socket(str(place)):
        with pytest.raises(ValueError, match="a server listens there already"), unix_socket(str(place)):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))


def test_a_successors_socket_is_left_alone(place: Path) -> None:
    with unix_socket(str(place)):
        place.unlink()
        place.touch()
    assert place.exists()


def test_other_files_are_left_alone(place: Path) -> None:
    place.write_text("mine")
    with pytest.raises(ValueError, match="is there already and no socket"), unix_socket(str(place)):
        pass
    assert place.read_text() == "mine"
    link = place.with_name("link")
    link.symlink_to(place)
    with pytest.raises(ValueError, match="is there already and no socket"), unix_socket(str(link)):
        pass


def test_places_where_none_can_be(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none" / "pyrf.sock", "cannot listen on .*No such file or directory"),
        (tmp_path / ("x" * 120), "has at most 107 bytes"),
        (tmp_path, "is there already and no socket"),
    ):
        with pytest.raises(ValueError, match=message), unix_socket(str(path)):
            pass


def test_clients_are_whom_the_proxy_names(pipe: Any, place: Path) -> None:
    settings = ServeSettings(**{**ROOMY, "creates_per_minute": 1}, allowed_hosts=("video.example",))
    with unix_socket(str(place)) as sock, Running(pipe, settings, sock=sock) as server:

        def create(client: str | None, host: str = "video.example") -> httpx.Response:
            headers = {"Host": host} | ({"X-Forwarded-For": client} if client else {})
            return server.http.post("/v1/sessions", json={"prompt": PROMPT}, headers=headers)

        assert create(None, host="evil.example").status_code == 403
        assert create(None).status_code == 201
        assert create(None).status_code == 429
        assert create("203.0.113.1").status_code == 201
        assert create("203.0.113.1").status_code == 429
        created = create("203.0.113.2").json()
        headers = {"Authorization": f"Bearer {created['token']}"}
        url = f"ws://video.example/v1/sessions/{created['id']}/ws"
        with unix_connect(str(place), url, additional_headers=headers, open_timeout=TIMEOUT) as viewer:
            assert read(viewer).type == "hello"
            viewer.send(json.dumps({"type": "close"}))
