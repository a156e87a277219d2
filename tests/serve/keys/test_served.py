"""A server with API keys: who gets in, how much, and what becomes of whom is revoked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from pyrf.serve import guesses
from pyrf.serve.keys import ring
from tests.serve.sessions.test_quotas import refusal
from tests.serve.test_envelope import Lines, log
from tests.serve.test_limits import error_of
from tests.support.api_keys import add_key, bearing, remove_key
from tests.support.running import PROMPT, Running, close_of, read, read_frames, read_until

__all__ = ["log"]

Serve = Callable[..., Running]
BODY = {"prompt": PROMPT}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where keys will be; servers look at it often."""
    monkeypatch.setattr(ring, "LOOK_S", 0.01)
    return tmp_path / "keys.yaml"


def begin(server: Running, secret: str, path: str = "/v1/sessions", **body: Any) -> httpx.Response:
    return server.http.post(path, json={**BODY, **body}, headers=bearing(secret))


def by_key(server: Running, secret: str) -> dict[tuple[str, str], float]:
    text = server.http.get("/metrics", headers=bearing(secret)).text
    return {
        (sample.name, sample.labels["key"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "key" in sample.labels
    }


def test_keys_and_the_token_let_in_side_by_side(serve: Serve, file: Path, log: Lines) -> None:
    studio = add_key(file, "studio")
    watcher = add_key(file, "watcher", may=("metrics",))
    server = serve(keys=str(file), token="the-one-of-all")
    for secret in (studio, "the-one-of-all"):
        created = begin(server, secret)
        assert created.status_code == 201
        server.delete(created.json())
        assert server.http.get("/v1/model", headers=bearing(secret)).status_code == 200
        assert begin(server, secret, "/v1/videos", num_frames=9).status_code == 200
    for secret in ("wrong", watcher, studio[:-1]):
        assert error_of(begin(server, secret), 401)["code"] == "unauthorized"
    assert error_of(server.http.post("/v1/sessions", json=BODY), 401)["code"] == "unauthorized"
    assert [line.get("key") for line in log.of("session created")] == [*["studio"] * 2, *["token"] * 2]
    assert [line.get("key") for line in log.of("session ended")] == [*["studio"] * 2, *["token"] * 2]
    assert [line.get("key") for line in log.of("request refused")] == [None, "watcher", None, None]
    told = json.dumps(log.lines)
    assert studio not in told
    assert "the-one-of-all" not in told


def test_who_guesses_keys_is_slowed(serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "EVERY_S", 3600.0)
    secret = add_key(file, "studio")
    server = serve(keys=str(file))
    for i in range(20):
        assert begin(server, f"pyrf_{i}").status_code == 401
    assert refusal(begin(server, secret)) == "rate_limited"


def test_who_is_revoked_is_out_at_once(serve: Serve, file: Path) -> None:
    studio, other = add_key(file, "studio"), add_key(file, "other")
    server = serve(keys=str(file))
    ended, stays = begin(server, studio).json(), begin(server, other).json()
    detached = begin(server, studio).json()
    with server.attach(ended) as viewer, server.attach(stays) as second:
        read_frames(viewer, 1)
        remove_key(file, "studio")
        assert read_until(viewer, "closing").reason == "revoked"
        with pytest.raises(ConnectionClosed) as closed:
            read(viewer)
        assert close_of(closed).code == 4401
        read_frames(second, 30)
    assert server.session(detached) is None
    assert server.post(ended, "/pause").status_code == 404
    assert begin(server, studio).status_code == 401
    again = add_key(file, "studio")  # another key of the same name
    server.wait_until(lambda: server.state.keyring.find(again))
    assert begin(server, studio).status_code == 401
    assert begin(server, again).status_code == 201


def test_who_is_revoked_while_its_session_begins_gets_none(serve: Serve, file: Path) -> None:
    """Moderation takes a while, and the key goes meanwhile."""
    secret = add_key(file, "studio")
    server = serve(keys=str(file))

    async def slow(*_: Any) -> Any:
        remove_key(file, "studio")
        server.state.keyring._read_anew(str(file))
        return await take(*_)

    take, server.registry._gate.take = server.registry._gate.take, slow
    assert error_of(begin(server, secret), 401)["code"] == "unauthorized"
    assert server.registry.info().sessions == 0


def test_a_key_has_some_sessions_at_a_time(serve: Serve, file: Path) -> None:
    studio, other = add_key(file, "studio", sessions=2), add_key(file, "other")
    server = serve(keys=str(file))
    first = begin(server, studio).json()
    begin(server, studio)
    for path in ("/v1/sessions", "/v1/videos"):
        reply = begin(server, studio, path)
        assert refusal(reply) == "quota"
        assert "the key studio may hold 2 sessions" in reply.text
    assert begin(server, other).status_code == 201
    server.delete(first)
    assert begin(server, studio).status_code == 201


def test_a_key_shows_some_video_in_a_day(serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio, other = add_key(file, "studio", seconds_per_day=1.0), add_key(file, "other")
    server = serve(keys=str(file))
    now = datetime(2026, 5, 1, 23, 0, tzinfo=UTC)
    monkeypatch.setattr(server.registry._accounts, "_now", lambda: now)
    created = begin(server, studio, pace="max").json()
    with server.attach(created) as viewer:
        shown = 0
        while (message := read(viewer)) and (isinstance(message, tuple) or message.type != "closing"):
            shown += isinstance(message, tuple)
        assert message.reason == "quota"
    fps = created["fps"]
    assert fps <= shown < 2 * fps  # the chunk that used the day up was still seen
    reply = begin(server, studio)
    assert refusal(reply) == "quota"
    assert reply.headers["retry-after"] == "3600"
    assert begin(server, other).status_code == 201
    now += timedelta(hours=2)
    assert begin(server, studio).status_code == 201


def test_metrics_tell_of_keys_that_there_are(serve: Serve, file: Path) -> None:
    studio, ops = add_key(file, "studio"), add_key(file, "ops", may=("admin", "metrics"))
    server = serve(keys=str(file))
    assert server.http.get("/metrics", headers=bearing(studio)).status_code == 401
    created = begin(server, studio, pace="max").json()
    with server.attach(created) as viewer:
        read_frames(viewer, 30)
        found = by_key(server, ops)
    assert found["pyrf_key_sessions", "studio"] == found["pyrf_key_sessions_started_total", "studio"] == 1
    assert found["pyrf_key_seconds_total", "studio"] >= 30 / created["fps"]
    assert {key for _, key in found} == {"studio"}  # an admin's key begins no sessions
    remove_key(file, "studio")
    server.wait_until(lambda: len(server.state.keyring.keys) == 1)
    assert by_key(server, ops) == {}
