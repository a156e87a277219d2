"""How a server process ends: in time, whatever it is at."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.running import PROMPT, TIMEOUT, read_frames
from tests.support.serving import serving, starting

ENDLESS_CHUNKS = """
import time
from pyrf.streaming.stream import Stream
compute, made = Stream._compute, []
def slow(self):
    made.append(self)
    if len(made) > 4:
        print("chunk under way", flush=True)
        time.sleep(3600)
    return compute(self)
Stream._compute = slow
"""
"""A model that makes a few chunks, those of its warming up among them, and never finishes the next."""

ENDLESS_LOADING = """
import time
import pyrf.loading
def load(*_, **__):
    print("loading", flush=True)
    time.sleep(3600)
pyrf.loading.load = load
"""


def begin_endless_chunk(process: subprocess.Popen[str], url: str) -> None:
    """A session whose chunk is under way for an hour."""
    body = {"prompt": PROMPT, "pace": "max"}
    created = httpx.post(f"{url}/v1/sessions", json=body, timeout=TIMEOUT).json()
    path = f"/v1/sessions/{created['id']}/ws?format=raw"
    headers = {"Authorization": f"Bearer {created['token']}"}
    with connect(url.replace("http", "ws") + path, additional_headers=headers, max_queue=None) as viewer:
        read_frames(viewer, 1)
        assert process.stdout is not None
        assert process.stdout.readline() == "chunk under way\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_chunk_that_takes_an_hour_does_not_hold_the_end_up(random_bundle: Path, number: int) -> None:
    options = ["--model", str(random_bundle), "--drain-seconds", "2"]
    with serving(*options, prelude=ENDLESS_CHUNKS) as (process, url):
        begin_endless_chunk(process, url)
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    events = {line["message"] for line in map(json.loads, err.splitlines())}
    assert {"draining", "session ended"} <= events


def test_sighup_below_nohup_changes_nothing(random_bundle: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with serving("--model", str(random_bundle), prelude=ignoring) as (process, url):
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/health/ready", timeout=TIMEOUT).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


def test_a_second_signal_ends_at_once(random_bundle: Path) -> None:
    options = ["--model", str(random_bundle), "--drain-seconds", "3600"]
    with serving(*options, prelude=ENDLESS_CHUNKS) as (process, url):
        begin_endless_chunk(process, url)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "draining" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == -signal.SIGTERM


def test_a_server_that_loads_ends_at_once() -> None:
    with starting("--drain-seconds", "3600", prelude=ENDLESS_LOADING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_health_answers_while_the_model_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with starting(prelude=ENDLESS_LOADING, port=port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health/live", timeout=TIMEOUT).status_code == 200
        ready = httpx.get(f"{url}/health/ready", timeout=TIMEOUT)
        assert ready.status_code == 503
        assert 0 < ready.json()["error"]["progress"] < 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_a_log_that_nobody_reads_holds_nothing_up(random_bundle: Path) -> None:
    """Its pipe is full, or its reader is gone."""
    for is_closed in (False, True):
        reader, writer = os.pipe()
        if is_closed:
            os.close(reader)
        try:
            with serving("--model", str(random_bundle), stderr=writer) as (process, url):
                os.set_blocking(writer, False)
                if not is_closed:
                    try:
                        while True:
                            os.write(writer, b"x" * 4096)
                    except BlockingIOError:
                        os.set_blocking(writer, True)
                for _ in range(3):
                    body = {"prompt": PROMPT}
                    created = httpx.post(f"{url}/v1/sessions", json=body, timeout=TIMEOUT).json()
                    headers = {"Authorization": f"Bearer {created['token']}"}
                    httpx.delete(f"{url}/v1/sessions/{created['id']}", headers=headers, timeout=TIMEOUT)
                assert httpx.get(f"{url}/health/ready", timeout=TIMEOUT).status_code == 200
                process.send_signal(signal.SIGTERM)
                assert process.wait(TIMEOUT) == 0
        finally:
            os.close(writer)
            if not is_closed:
                os.close(reader)
