"""`pyrf serve` as a process: its first line, its refusals, its end."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pyrf import cli
from tests.support.certificates import write_certificate
from tests.support.running import PROMPT, TIMEOUT, close_of, own_logging, read_frames, read_until
from tests.support.serving import serving

__all__ = ["own_logging"]


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGTERM, []), (signal.SIGINT, ["--log-prompts"]), (signal.SIGHUP, [])],
)
def test_a_signal_drains_and_exits_well(random_bundle: Path, number: int, options: list[str]) -> None:
    with serving("--model", str(random_bundle), *options) as (process, url):
        created = httpx.post(f"{url}/v1/sessions", json={"prompt": PROMPT}, timeout=TIMEOUT).json()
        path = f"/v1/sessions/{created['id']}/ws?format=raw"
        headers = {"Authorization": f"Bearer {created['token']}"}
        address = url.replace("http", "ws") + path
        with connect(address, additional_headers=headers, max_queue=None) as viewer:
            read_frames(viewer, 10)
            process.send_signal(number)
            assert read_until(viewer, "closing").reason == "shutdown"
            with pytest.raises(ConnectionClosed) as closed:
                viewer.recv(TIMEOUT)
        assert close_of(closed).code == 1001
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert out == ""
    lines = [json.loads(line) for line in err.splitlines()]
    events = {line["message"]: line for line in lines}
    assert set(events) >= {"session created", "viewer attached", "draining", "session ended"}
    assert events["session ended"]["session"] == created["id"]
    assert events["session ended"]["reason"] == "shutdown"
    assert events["session created"]["prompt_chars"] == len(PROMPT)
    assert (PROMPT in err) == bool(options)  # prompts are never logged unless asked for
    assert created["token"] not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "{taken}"], "cannot listen on 127.0.0.1 port {taken}: Address already in use; choose"),
        (["--port", "70000"], "a port lies in 0..65535, got 70000"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid port"),
        (["--host", "0.0.0.0"], "can be reached from other machines: set a token"),
        (["--model", "./nowhere"], "nowhere"),
        (["--device", "cuda:99"], "torch sees"),
        (["--backend", "abacus"], "backend must be one of"),
        (["--max-sessions", "0"], "max_sessions must be positive and finite, got 0"),
        (["--threads", "0"], "--threads must lie in 1..1024, got 0"),
        (["--log-level", "loud"], "--log-level must be debug, info, warning or error"),
        (["--origin", "app.example"], "no web origin is named by 'app.example'"),
        (["--origin", "*"], "lets every web page use the server; set a token"),
        (["--allowed-host", "https://video.example"], "no host is named by 'https://video.example'"),
        (["--trusted-proxy", "nginx"], "a trusted proxy is named by its address or network, got 'nginx'"),
        (["--root-path", "/v1"], "/v1 begins like one of the server's own paths"),
        (["--uds", "/no/such/folder/pyrf.sock"], "cannot listen on /no/such/folder/pyrf.sock: No such file"),
        (["--uds", "pyrf.sock", "--ray"], "--uds does not go with --ray"),
        (["--ssl-certfile", "./nowhere.pem"], "cannot read nowhere.pem for TLS: No such file"),
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile needs the certificate too"),
    ],
)
@pytest.mark.usefixtures("own_logging")
def test_what_cannot_be_served_is_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        options = [option.format(taken=taken) for option in options]
        if "--port" not in options:
            options += ["--port", "0"]
        assert cli.run(["serve", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message.format(taken=taken) in err
    assert err.count("\n") == 1


def test_a_unix_socket_with_a_prefix(random_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "pyrf.sock"
    options = ["--model", str(random_bundle), "--uds", str(place), "--root-path", "/live"]
    with serving(*options) as (process, url):
        assert url == f"unix:{place}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place))) as http:
            assert http.get("http://localhost/live/health/ready", timeout=TIMEOUT).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert not place.exists()


def test_https_with_a_prefix(random_bundle: Path, tmp_path: Path) -> None:
    certfile, keyfile = write_certificate(tmp_path)
    options = ["--ssl-certfile", str(certfile), "--ssl-keyfile", str(keyfile), "--root-path", "/live"]
    with serving("--model", str(random_bundle), *options) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        assert url.endswith("/live/")
        trust = ssl.create_default_context(cafile=str(certfile))
        assert "/live/" in httpx.get(url, verify=trust, timeout=TIMEOUT).text


def test_an_extra_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiortc", None)
    assert cli.run(["serve"]) == 2
    assert (
        capsys.readouterr().err
        == "error: serving needs aiortc; run pip install '.[serve]' in a clone of pyrf\n"
    )
