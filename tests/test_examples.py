"""The examples run as they stand in `examples/`, without a display."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageSequence
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from pyrf.protocol import unpack_frame
from pyrf.video.writer import Frames
from pyrf.worlds.shapes.detector import detect
from tests.support.video_files import decode

EXAMPLES = Path(__file__).parent.parent / "examples"
TIMEOUT_S = 300
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "GRADIO_ANALYTICS_ENABLED": "False"}


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def wait_for(url: str) -> None:
    """Return once a server answers; nothing tells when a process of its own making listens."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=TIMEOUT_S).is_success:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The URL of a server of the bundled model."""
    address = f"http://127.0.0.1:{free_port()}"
    pyrf = str(Path(sys.executable).with_name("pyrf"))
    port = address.rpartition(":")[2]
    with running(pyrf, "serve", "--port", port, "--log-level", "warning", *options):
        wait_for(f"{address}/health/ready")
        yield address


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def test_every_example_is_short_and_listed():
    listed = (EXAMPLES.parent / "docs" / "serving.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path.name
        assert f"examples/{path.name}" in listed, path.name


def test_file_writer(url: str, tmp_path: Path):
    prompt = ("--prompt", "a red circle moves right")
    said = run("file_writer.py", tmp_path / "out.mp4", "--url", url, "--frames", 33, *prompt)
    assert said == f"{tmp_path / 'out.mp4'}: 33 frames\n"
    frames = decode(tmp_path / "out.mp4")
    assert frames.shape == (33, 64, 96, 3)
    seen = detect(frames)
    assert (seen.color, seen.shape, seen.motion) == ("red", "circle", "right")


def test_file_writer_counts_what_it_got(tmp_path: Path):
    with serving("--max-minutes", "0.05") as url:
        said = run("file_writer.py", tmp_path / "out", "--url", url, "--frames", 10**6)
    count = len(list((tmp_path / "out").iterdir()))
    assert 0 < count < 10**6
    assert said == f"{tmp_path / 'out'}: {count} frames\n"


def test_file_writer_refuses_no_frames(tmp_path: Path):
    command = [sys.executable, str(EXAMPLES / "file_writer.py"), str(tmp_path / "out.mp4"), "--frames", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=ENVIRONMENT)
    assert refused.returncode == 2
    assert "--frames must be at least 1, got 0" in refused.stderr


def test_switch_prompts(url: str):
    prompts = ["a large red circle", "a large blue square", "a yellow triangle"]
    lines = run("switch_prompts.py", *prompts, "--url", url, "--frames", 12).splitlines()
    said = [re.match(r"frame (\d+): 'a(?: large)? (.*?) ", line) for line in lines]
    assert [match and match[2] for match in said] == ["red", "blue", "yellow"]
    indices = [int(match[1]) for match in said if match]
    assert indices[0] == 0
    assert indices == sorted(set(indices))


def test_desktop_window(tmp_path: Path):
    pytest.importorskip("matplotlib")
    run("desktop_window.py", "--save", tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as image:
        colours = {frame.convert("RGB").resize((8, 8)).tobytes() for frame in ImageSequence.Iterator(image)}
    assert len(colours) > 8  # it moves


def test_fastapi_app():
    port = free_port()
    with running(sys.executable, str(EXAMPLES / "fastapi_app.py"), "--port", str(port), "--model", "tiny"):
        wait_for(f"http://127.0.0.1:{port}/video/health/ready")
        assert "My app" in httpx.get(f"http://127.0.0.1:{port}/").text
        body = {"prompt": "a large red circle"}
        created = httpx.post(
            f"http://127.0.0.1:{port}/video/v1/sessions", json=body, timeout=TIMEOUT_S
        ).json()
        url = f"ws://127.0.0.1:{port}/video/v1/sessions/{created['id']}/ws?format=raw"
        protocols = [Subprotocol("pyrf.v1"), Subprotocol(f"pyrf.token.{created['token']}")]
        with connect(url, compression=None, subprotocols=protocols) as viewer:
            pixels: list[Frames] = []
            while len(pixels) < 20:
                message = viewer.recv(TIMEOUT_S)
                if isinstance(message, bytes):
                    header, data = unpack_frame(message)
                    pixels.append(np.frombuffer(data, np.uint8).reshape(header.height, header.width, 3))
        assert detect(np.stack(pixels)).color == "red"


def test_gradio_app():
    import gradio_client  # seconds

    port = free_port()
    with running(sys.executable, str(EXAMPLES / "gradio_app.py"), "--port", str(port)):
        wait_for(f"http://127.0.0.1:{port}/")
        client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False)
        job = client.submit("a large red circle", api_name="/show")
        shown = [next(job) for _ in range(3)]
        job.cancel()
    assert len(set(map(str, shown))) == 3
