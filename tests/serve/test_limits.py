"""What is refused, to whom, and in what words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from pyrf.serve.settings import ServeSettings
from pyrf.serve.transports.controls import answer
from tests.support.random_bundle import HEIGHT, TEXT_LEN, WIDTH
from tests.support.running import BLUE, PROMPT, Running, close_of, read, read_until


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error of a reply, which must have the one shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) in ({"code", "message"}, {"code", "message", "retry_after"})
    assert "\n" not in body["error"]["message"]
    assert ("retry_after" in body["error"]) == ("retry-after" in response.headers)
    if "retry-after" in response.headers:
        assert int(response.headers["retry-after"]) >= body["error"]["retry_after"] > 0
    return body["error"]


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({}, "invalid", "prompt: Field required"),
        ({"prompt": 7}, "invalid", "prompt: Input should be a valid string"),
        ({"prompt": ""}, "bad_prompt", "the prompt is empty"),
        ({"prompt": "a " * 50}, "bad_prompt", f"more than the {TEXT_LEN} tokens"),
        ({"prompt": "a" * 3000}, "bad_prompt", "may have 2000 characters, got 3000"),
        ({"prompt": PROMPT, "seed": -1}, "invalid", "seed: "),
        ({"prompt": PROMPT, "seed": 2**63}, "invalid", "seed: "),
        ({"prompt": PROMPT, "seed": 1.5}, "invalid", "seed: "),
        ({"prompt": PROMPT, "height": 33}, "bad_size", "multiple of 16, got 33; try 32"),
        ({"prompt": PROMPT, "height": -16}, "bad_size", "height must be a positive multiple"),
        ({"prompt": PROMPT, "width": 16 * 10**3}, "bad_size", f"may have {HEIGHT * WIDTH} pixels"),
        ({"prompt": PROMPT, "pace": "slow"}, "invalid", "pace: "),
        ({"prompt": PROMPT, "grace_s": -1}, "invalid", "grace_s: "),
        ({"prompt": PROMPT, "speed": 2}, "invalid", "speed: Extra inputs are not permitted"),
        ([], "invalid", "the body: "),
    ],
)
def test_bad_sessions(server: Running, body: Any, code: str, message: str) -> None:
    content = json.dumps(body)
    response = server.http.post("/v1/sessions", content=content, headers={"Content-Type": "application/json"})
    error = error_of(response, 422)
    assert error["code"] == code
    assert message in error["message"]
    assert server.http.get("/v1/model").json()["sessions"] == 0


def test_bad_prompts_change_nothing(server: Running) -> None:
    created = server.create()
    assert error_of(server.post(created, "/prompt", prompt=" "), 422)["code"] == "bad_prompt"
    with server.attach(created) as socket:
        read(socket)
        socket.send(json.dumps({"type": "prompt", "prompt": "", "ref": 3}))
        message = read_until(socket, "error")
        assert (message.error.code, message.ref) == ("bad_prompt", 3)
        for bad in ("", "{", "[]", '{"type": "dance"}', '{"type": "pause", "ref": []}', b"\xff\x00", "7"):
            socket.send(bad)
            expected = "bad_frame" if isinstance(bad, bytes) else "invalid"
            assert read_until(socket, "error").error.code == expected
    assert server.post(created, "/prompt", prompt=BLUE).json()["prompt_id"] == 1
    server.delete(created)


@pytest.mark.parametrize("type", ["prompt", "pause", "resume", "close"])
def test_controls_of_a_session_that_has_ended(server: Running, type: str) -> None:
    created = server.create()
    session = server.session(created)
    server.delete(created)
    control = json.dumps({"type": type, "ref": 3} | ({"prompt": BLUE} if type == "prompt" else {}))
    reply = server.run(answer(server.registry, session, control))
    assert (reply.type, reply.error.code, reply.ref) == ("error", "no_session", 3)


def test_bodies_have_a_limit(server: Running) -> None:
    limit = server.settings.max_body_bytes
    created = server.create()
    prompt = f"/v1/sessions/{created['id']}/prompt"
    for path, most in (("/v1/sessions", server.settings.max_opening_bytes), (prompt, limit)):
        error = error_of(server.http.post(path, content=b"x" * (most + 1)), 413)
        assert (error["code"], error["message"]) == ("too_large", f"a body may have {most} bytes; send less")
        # Without a length the body is counted while it comes.
        pieces = (b"x" * 10_000 for _ in range(most // 10_000 + 1))
        assert error_of(server.http.post(path, content=pieces), 413)["code"] == "too_large"
    with server.attach(created) as socket:
        socket.send("x" * (limit + 1))
        with pytest.raises(ConnectionClosed) as closed:
            read_until(socket, "closing")
        assert close_of(closed).code == 1009
    with server.attach(created) as socket:
        assert read(socket).type == "hello"
    server.delete(created)


def test_messages_have_a_limit_under_any_server(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, most = server.settings.max_body_bytes, server.settings.max_source_bytes
    monkeypatch.setattr(server._server.config, "ws_max_size", 100 * limit)  # as Ray's proxy has it
    created = server.create(pace="max")
    texts, frame = ("x" * (limit + 1), "é" * (limit // 2 + 1)), b"x" * (most + 1)
    for message, allowed in ((texts[0], limit), (texts[1], limit), (frame, most)):
        with server.attach(created) as socket:
            socket.send("x" * limit)
            assert read_until(socket, "error").error.code == "invalid"
            socket.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                read_until(socket, "error")
            assert (close_of(closed).code, close_of(closed).reason) == (
                1009,
                f"a message may have {allowed} bytes; send less",
            )
    server.delete(created)


def test_clips_have_a_limit(server: Running) -> None:
    limit = server.settings.max_video_frames
    body = {"prompt": PROMPT, "num_frames": limit + 1}
    assert error_of(server.http.post("/v1/videos", json=body), 422)["code"] == "too_long"


def test_unknown_paths_and_methods(server: Running) -> None:
    assert error_of(server.http.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error_of(server.http.put("/v1/sessions"), 405)["code"] == "method_not_allowed"


def test_a_full_server_says_when_to_come_back(serve: Callable[..., Running]) -> None:
    server = serve(max_sessions=2)
    sessions = [server.create(), server.create()]
    body = {"prompt": PROMPT}
    for path in ("/v1/sessions", "/v1/videos"):
        assert error_of(server.http.post(path, json=body), 503)["code"] == "full"
    server.delete(sessions[0])
    server.delete(server.create())
    assert "pyrf_refused_total" in server.http.get("/metrics").text


def test_rates(serve: Callable[..., Running]) -> None:
    server = serve(creates_per_minute=2, controls_per_second=0.2)
    created = server.create()
    server.create()
    error = error_of(server.http.post("/v1/sessions", json={"prompt": PROMPT}), 429)
    assert error["code"] == "rate_limited"
    assert 25 < error["retry_after"] <= 30
    assert server.post(created, "/pause").status_code == 200
    assert server.post(created, "/resume").status_code == 200
    assert error_of(server.post(created, "/prompt", prompt=BLUE), 429)["code"] == "rate_limited"
    with server.attach(created) as socket:
        socket.send('{"type": "pause"}')
        assert read_until(socket, "error").error.retry_after > 0


def test_sessions_have_a_longest_length(serve: Callable[..., Running]) -> None:
    server = serve(max_session_s=2.0)
    created = server.create()
    with server.attach(created) as socket:
        assert read_until(socket, "closing").reason == "max_length"
        with pytest.raises(ConnectionClosed) as closed:
            read(socket)
    assert close_of(closed).code == 1000


def test_the_token_is_asked_for(serve: Callable[..., Running]) -> None:
    server = serve(token="secret")
    body = {"prompt": PROMPT}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2VjcmV0"}):
        for call in (
            lambda h: server.http.post("/v1/sessions", json=body, headers=h),
            lambda h: server.http.post("/v1/videos", json=body, headers=h),
            lambda h: server.http.get("/v1/model", headers=h),
            lambda h: server.http.get("/metrics", headers=h),
        ):
            response = call(headers)
            assert error_of(response, 401)["code"] == "unauthorized"
            assert response.headers["www-authenticate"] == "Bearer"
    assert server.http.get("/health/ready").status_code == 200
    server.http.headers["Authorization"] = "Bearer secret"
    created = server.create()
    del server.http.headers["Authorization"]
    with server.attach(created) as socket:  # the session's own token is enough
        assert read(socket).type == "hello"
    assert error_of(server.post({**created, "token": "secret"}, "/pause"), 404)["code"] == "no_session"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Origin": "http://evil.example"}, 403, "forbidden_origin"),
        ({"Origin": "null"}, 403, "forbidden_origin"),
        ({"Origin": "http://127.0.0.1:1"}, 403, "forbidden_origin"),
        ({"Host": "evil.example"}, 403, "forbidden_host"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403, "forbidden_host"),
        ({"Host": ""}, 403, "forbidden_host"),
        ({"Host": "[::1"}, 403, "forbidden_host"),
        ({"Origin": "http://["}, 403, "forbidden_origin"),
        ({"Origin": "https://app.example"}, 201, None),
        ({"Host": "localhost:80", "Origin": "http://localhost:80"}, 201, None),
    ],
)
def test_origins_and_hosts(
    app_server: Running, headers: dict[str, str], status: int, code: str | None
) -> None:
    server = app_server
    response = server.http.post("/v1/sessions", json={"prompt": PROMPT}, headers=headers)
    if code is None:
        assert response.status_code == status
        if "app.example" in headers["Origin"]:
            assert response.headers["access-control-allow-origin"] == "https://app.example"
        created = response.json()
        server.delete(created)
    else:
        assert error_of(response, status)["code"] == code


@pytest.fixture(scope="module")
def app_server(pipe: Any) -> Any:
    """A server that the pages of one origin may use."""
    settings = ServeSettings(origins=("https://app.example",), creates_per_minute=1e5)
    with Running(pipe, settings) as running:
        yield running


def test_websockets_of_foreign_pages(app_server: Running) -> None:
    created = app_server.create()
    url = app_server.url.replace("http", "ws")
    url += f"/v1/sessions/{created['id']}/ws"
    headers = {"Authorization": f"Bearer {created['token']}"}
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(url, origin=Origin("https://evil.example"), additional_headers=headers),
    ):
        pass
    assert refused.value.response.status_code == 403
    for origin in ("https://app.example", app_server.url):
        with connect(url, origin=Origin(origin), additional_headers=headers) as socket:
            assert read(socket).type == "hello"
    app_server.delete(created)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_sessions": 0}, "max_sessions must be positive"),
        ({"lead_s": -1.0}, "lead_s must be positive"),
        ({"creates_per_minute": 0}, "creates_per_minute must be positive"),
        ({"grace_s": math.inf}, "grace_s must be positive and finite, got inf"),
        ({"max_session_s": math.nan}, "max_session_s must be positive and finite, got nan"),
        ({"jpeg_quality": 96}, "jpeg_quality must be 1..95, got 96"),
        ({"token": ""}, "token must be printable ASCII"),
        ({"token": "secret\n"}, "token must be printable ASCII"),
        ({"token": "пароль"}, "token must be printable ASCII"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        ServeSettings(**settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("token", ["x", "two words", "a+b/c=="])
def test_a_token_that_is_taken_lets_in(serve: Callable[..., Running], token: str) -> None:
    server = serve(token=token)
    assert server.http.get("/v1/model", headers={"Authorization": f"Bearer {token}"}).status_code == 200
