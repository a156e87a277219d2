"""What every reply has, and what the log says of those who are refused."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pyrf import cli
from pyrf.serve import guesses
from pyrf.serve.logs import JsonFormatter
from pyrf.serve.server import bind
from pyrf.serve.settings import ServeSettings
from tests.serve.test_limits import error_of
from tests.support.running import PROMPT, TIMEOUT, Running
from tests.support.serving import serving

TOKEN = "a-long-token-of-a-server"


class Lines(logging.Handler):
    """What the server's log would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(JsonFormatter().format(record)))

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]


@pytest.fixture
def log() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("pyrf")
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/static/app.js", 200),
        ("/docs", 200),
        ("/static-offline-docs/swagger-ui.css", 200),
        ("/openapi.json", 200),
        ("/v1/model", 200),
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/metrics", 200),
        ("/v1/nothing", 404),
        ("/static/nothing", 404),
        ("/v1/sessions", 405),
    ],
)
def test_replies_are_guarded_and_head_answers_where_get_does(server: Running, path: str, status: int) -> None:
    got, head = server.http.get(path), server.http.head(path)
    assert (got.status_code, head.status_code, head.content) == (status, status, b"")
    varying = {"date", "x-request-id", "content-length", "last-modified"}
    assert [name for name in got.headers if name not in varying] == [
        name for name in head.headers if name not in varying
    ]
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["referrer-policy"] == "no-referrer"
    assert got.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
    assert got.headers["cache-control"] in ("no-store", "no-cache")
    if "json" in got.headers["content-type"]:
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["content-security-policy"].startswith("default-src 'none'; frame")


def test_clips_and_new_sessions_are_not_stored(server: Running) -> None:
    clip = server.http.post("/v1/videos", json={"prompt": PROMPT, "num_frames": 9})
    created = server.http.post("/v1/sessions", json={"prompt": PROMPT})
    for response in (clip, created):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
    server.delete(created.json())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123_4.5", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ('"}, {"level": "error', False),
        ("a b", False),
        ("a\tb", False),
    ],
)
def test_every_reply_has_the_id_of_its_request(server: Running, given: str, kept: bool, log: Lines) -> None:
    response = server.http.get("/v1/nothing", headers={"X-Request-Id": given})
    id = response.headers["x-request-id"]
    assert (id == given) == kept
    assert 16 <= len(id) <= 64 or kept
    assert [line["request"] for line in log.of("request refused")] == [id]
    created = server.http.post("/v1/sessions", json={"prompt": PROMPT}, headers={"X-Request-Id": "mine"})
    assert log.of("session created")[0]["request"] == "mine"
    server.delete(created.json())


def test_a_websocket_has_an_id_too(server: Running, log: Lines) -> None:
    created = server.create()
    url = f"{server.url.replace('http', 'ws')}/v1/sessions/{created['id']}/ws"
    with connect(url, additional_headers={"X-Request-Id": "abc"}) as viewer:
        assert viewer.response is not None
        assert viewer.response.headers["X-Request-Id"] == "abc"
        with pytest.raises(ConnectionClosed):
            viewer.recv(TIMEOUT)
    (line,) = log.of("request refused")
    assert (line["request"], line["code"], line["status"]) == ("abc", "no_session", 4404)
    assert (line["method"], line["address"], line["level"]) == ("WEBSOCKET", "127.0.0.1", "warning")
    server.delete(created)


def test_refusals_are_in_the_log_without_what_was_sent(serve: Callable[..., Running], log: Lines) -> None:
    server = serve(token=TOKEN)
    asked = [
        (
            lambda: server.http.get("/v1/model", headers={"Authorization": "Bearer my-guess"}),
            401,
            "unauthorized",
        ),
        (
            lambda: server.http.get("/v1/model?token=my-guess", headers={"Host": "evil"}),
            403,
            "forbidden_host",
        ),
        (lambda: server.http.get("/v1/model", headers={"Origin": "http://evil"}), 403, "forbidden_origin"),
        (
            lambda: server.http.get("/v1/sessions/x", headers={"Authorization": "Bearer my-guess"}),
            404,
            "no_session",
        ),
        (lambda: server.http.get("/" + "x" * 5000), 404, "not_found"),
    ]
    for ask, status, code in asked:
        assert error_of(ask(), status)["code"] == code
    lines = log.of("request refused")
    assert [(line["status"], line["code"]) for line in lines] == [(status, code) for _, status, code in asked]
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    assert [line["level"] for line in lines] == ["warning"] * 4 + ["info"]
    assert "my-guess" not in json.dumps(log.lines)
    assert max(len(line["path"]) for line in lines) == 200


def test_guessing_is_slowed(serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "AT_ONCE", 5)
    monkeypatch.setattr(guesses, "EVERY_S", 1000.0)
    server = serve(token=TOKEN)
    server.http.headers["Authorization"] = f"Bearer {TOKEN}"
    created = server.create()
    server.http.headers["Authorization"] = "Bearer wrong"
    for _ in range(5):
        assert error_of(server.http.get("/v1/model"), 401)["code"] == "unauthorized"
    for _ in range(3):
        error = error_of(server.http.get("/v1/model"), 429)
        assert error["retry_after"] > 900
    # The address waits, even with the right token; who has none is told as ever.
    server.http.headers["Authorization"] = f"Bearer {TOKEN}"
    assert error_of(server.http.get("/metrics"), 429)["code"] == "rate_limited"
    del server.http.headers["Authorization"]
    assert error_of(server.http.get("/v1/model"), 401)["code"] == "unauthorized"
    # A session's own token cannot be guessed, so it lets in; a wrong one is refused.
    assert server.post(created, "/pause").status_code == 200
    assert error_of(server.post({**created, "token": "wrong"}, "/pause"), 429)["code"] == "rate_limited"
    assert server.delete(created).status_code == 204


def test_metrics_have_a_token_of_their_own(serve: Callable[..., Running]) -> None:
    server = serve(token=TOKEN, metrics_token="for-prometheus")
    status = {
        (path, token): server.http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
        for path in ("/metrics", "/v1/model")
        for token in (TOKEN, "for-prometheus", "wrong")
    }
    assert list(status.values()) == [200, 200, 401, 200, 401, 401]
    assert server.http.get("/metrics").status_code == 401
    alone = serve(metrics_token="for-prometheus")
    assert alone.http.get("/metrics").status_code == 401
    assert alone.http.get("/v1/model").status_code == 200


def test_a_fault_has_the_headers_of_other_replies(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, log: Lines
) -> None:
    server = serve(origins=("https://app.example",))

    def fail(_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(server.registry, "info", fail)
    response = server.http.get("/v1/model", headers={"Origin": "https://app.example"})
    assert error_of(response, 500)["code"] == "internal"
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-request-id" in response.headers["access-control-expose-headers"].lower()
    assert response.headers["x-content-type-options"] == "nosniff"
    (line,) = log.of("request failed")
    assert line["request"] == response.headers["x-request-id"]
    assert "a fault" in line["exception"]


@pytest.mark.parametrize("name", ["token", "metrics_token"])
@pytest.mark.parametrize("token", ["a", "short-token-15c", "a" * 40, "ababababababababab"])
def test_a_weak_token_is_for_loopback(name: str, token: str) -> None:
    given: dict[str, Any] = {name: token}
    ServeSettings(**given)
    with pytest.raises(ValueError, match=f"^{name} can be guessed.*at least 16 characters") as refused:
        ServeSettings(loopback=False, **given)
    assert token == "a" or token not in str(refused.value)
    given[name] = TOKEN
    ServeSettings(loopback=False, **given)


def test_every_address_of_ipv6_is_every_address() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no dual-stack sockets")
    with bind("::", 0) as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=TIMEOUT).close()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "cannot be read: No such file or directory"),
        (b"", [], "is empty; write the token into it"),
        (b" \n", [], "is empty; write the token into it"),
        (b"\xff\xfe", [], "cannot be read: it is no text"),
        (b"x", ["--token", "y"], "are both given; leave one of them out"),
        (b"a\n", ["--host", "0.0.0.0"], "token can be guessed"),
    ],
)
def test_bad_token_files(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], content: bytes | None, options: list[str], message: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert cli.run(["serve", "--port", "0", "--token-file", str(file), *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_token_from_a_file(tmp_path: Any, random_bundle: Any) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with serving("--model", str(random_bundle), "--token-file", str(file)) as (_, url):
        for given, status in (("x", 401), (TOKEN, 200)):
            headers = {"Authorization": f"Bearer {given}"}
            while (reply := httpx.get(f"{url}/v1/model", headers=headers)).status_code == 503:
                pass  # the model is still being loaded
            assert reply.status_code == status
