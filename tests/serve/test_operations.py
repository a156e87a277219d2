"""Health, metrics, the OpenAPI page, and a server that is about to go."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from pyrf.serve.logs import JsonFormatter
from tests.support.running import PROMPT, TIMEOUT, Running, read_frames, read_until


def figures(server: Running) -> dict[tuple[str, str], float]:
    """What `/metrics` says now, by name and by the values of all labels."""
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(server.http.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_tell_what_happened(serve: Callable[..., Running]) -> None:
    server = serve()
    created, idle = server.create(pace="max"), server.create()
    with server.attach(created) as socket:
        frames = read_frames(socket, 45)
        server.post(created, "/pause")
        read_until(socket, "state")
        during = figures(server)
    assert during["pyrf_sessions", "random paused"] == 1
    assert during["pyrf_sessions", "random detached"] == 1
    assert during["pyrf_sessions_started_total", "random"] == 2
    assert during["pyrf_frames_total", "random"] >= len(frames)
    assert during["pyrf_first_frame_seconds_count", ""] == 2
    assert during["pyrf_chunk_seconds_count", "random"] >= 5
    assert during["pyrf_queue_seconds_count", ""] >= 5
    assert during["process_resident_memory_bytes", ""] > 0
    server.delete(created)
    server.delete(idle)
    assert server.post(idle, "/pause").status_code == 404
    after = figures(server)
    assert after["pyrf_sessions_ended_total", "closed"] == 2
    assert after["pyrf_refused_total", "no_session"] == 1


def test_refusals_are_counted_by_code(serve: Callable[..., Running]) -> None:
    server = serve()
    created = server.create()
    server.http.post("/v1/sessions", json={})
    server.http.get("/v1/model", headers={"Origin": "http://evil.example"})
    server.http.get("/v1/model", headers={"Host": "evil.example"})
    server.http.post("/v1/sessions", content=b"x" * (server.settings.max_opening_bytes + 1))
    server.http.get("/v1/nothing")
    url = f"{server.url.replace('http', 'ws')}/v1/sessions/{created['id']}/ws"
    with pytest.raises(InvalidStatus), connect(url, origin=Origin("https://evil.example")):
        pass
    with connect(url) as socket, pytest.raises(ConnectionClosed):  # without the session's token
        socket.recv(TIMEOUT)
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    samples = next(family.samples for family in families if family.name == "pyrf_refused")
    assert {s.labels["code"]: s.value for s in samples if s.name == "pyrf_refused_total"} == {
        "invalid": 1,
        "forbidden_origin": 2,
        "forbidden_host": 1,
        "too_large": 1,
        "not_found": 1,
        "no_session": 1,
    }


def test_the_openapi_page_needs_no_other_host(server: Running) -> None:
    page = server.http.get("/docs").text
    assert "cdn" not in page
    script = page.split('<script src="')[1].split('"')[0]
    assert server.http.get(script).status_code == 200
    paths = server.http.get("/openapi.json").json()["paths"]
    assert {"/v1/sessions", "/v1/sessions/{id}/prompt", "/v1/videos", "/health/live"} <= set(paths)


def test_a_draining_server_takes_nobody(serve: Callable[..., Running]) -> None:
    server = serve()
    assert server.http.get("/health/live").json() == {"status": "live"}
    assert server.http.get("/health/ready").json() == {"status": "ready"}
    created = server.create()
    with server.attach(created) as socket:
        read_frames(socket, 1)
        server.run(server.registry.drain())
        assert read_until(socket, "closing").reason == "shutdown"
    for response in (
        server.http.get("/health/ready"),
        server.http.post("/v1/sessions", json={"prompt": PROMPT}),
    ):
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "shutting_down"
    assert server.http.get("/health/live").status_code == 200


def test_log_lines_are_json() -> None:
    record = logging.makeLogRecord({"name": "pyrf.serve", "levelname": "INFO", "msg": "a %s", "args": ("b",)})
    record.session = "x"
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["level"], line["session"]) == ("a b", "info", "x")
    assert line["time"].endswith("+00:00")
