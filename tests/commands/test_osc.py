"""`pyrf osc`: real OSC messages, to a session of a real server and to a stream of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import httpx
import numpy as np
import pytest
from safetensors.torch import save_file

pytest.importorskip("pythonosc")

from pythonosc.udp_client import SimpleUDPClient

from pyrf import cli
from pyrf.commands.osc_show import perform
from pyrf.integrations.osc import OscListener
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support import adapters
from tests.support.receivers import free_port
from tests.support.running import BLUE, PROMPT, ROOMY, TIMEOUT, Running, pipe, serve

__all__ = ["pipe", "serve"]


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread, and hear of its errors."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(TIMEOUT)
    if errors:
        raise errors[0]
    assert not thread.is_alive()


def test_a_session_of_a_server(
    random_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors(adapters.LINEARS)), file)
    inked = StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(file, 0.25)])
    port = free_port(socket.SOCK_DGRAM)

    def play(server: Running) -> None:
        sender = SimpleUDPClient("127.0.0.1", port)
        try:
            server.wait_until(lambda: server.registry.live)
            (session,) = server.registry.live
            sender.send_message("/pyrf/prompt", BLUE)
            server.wait_until(lambda: session.info().prompt_id == 1)
            sender.send_message("/pyrf/adapter/ink", 0.75)
            server.wait_until(lambda: server.pipe.adapters == {"ink": 0.75})
            sender.send_message("/pyrf/pause", 1)
            server.wait_until(lambda: session.info().state == "paused")
            sender.send_message("/pyrf/pause", 0)
            server.wait_until(lambda: session.info().state == "running")
            sender.send_message("/pyrf/seed", 7)
            server.wait_until(lambda: {one.id for one in server.registry.live} - {session.id})
        finally:
            sender.send_message("/pyrf/stop", [])

    settings = ServeSettings(**{**ROOMY, "max_sessions": 1})  # so adapters may change
    with Running(inked, settings) as server, beside(lambda: play(server)):
        assert cli.run(["osc", PROMPT, "--server", server.url, "--port", str(port)]) == 0
        server.wait_until(lambda: not server.registry.live)
    out, err = capsys.readouterr()
    assert out.startswith(f"listening for OSC on 127.0.0.1:{port}\nwatch at {server.url}/v1/sessions/")
    assert out.count("watch at") == 2
    assert "seed 7: the stream begins again" in err


def test_others_watch_what_is_steered(serve: Callable[..., Running], capsys: Any) -> None:
    server, port = serve(), free_port(socket.SOCK_DGRAM)

    def watch() -> None:
        sender = SimpleUDPClient("127.0.0.1", port)
        try:
            server.wait_until(lambda: server.registry.live)
            (session,) = server.registry.live
            url = f"{server.url}/v1/sessions/{session.id}/watch/{session.watch_key}/frames.mjpeg"
            with httpx.stream("GET", url, timeout=TIMEOUT) as response:
                assert response.status_code == 200
                assert b"image/jpeg" in next(response.iter_bytes())
        finally:
            sender.send_message("/pyrf/stop", [])

    with beside(watch):
        assert cli.run(["osc", PROMPT, "--server", server.url, "--port", str(port)]) == 0


@pytest.mark.parametrize(("options", "name"), [(["--model", "second"], "second"), ([], "random")])
def test_a_server_s_model_is_chosen(pipe: StreamingPipeline, options: list[str], name: str) -> None:
    """By the option only: PYRF_MODEL, which the tests set, names a model that the server lacks."""
    port, models = free_port(socket.SOCK_DGRAM), list[str]()

    def look(server: Running) -> None:
        try:
            server.wait_until(lambda: server.registry.live)
            models.extend(session.info().model for session in server.registry.live)
        finally:
            SimpleUDPClient("127.0.0.1", port).send_message("/pyrf/stop", [])

    with (
        Running(pipe, ServeSettings(**ROOMY), others={"second": pipe}) as server,
        beside(lambda: look(server)),
    ):
        assert cli.run(["osc", PROMPT, "--server", server.url, "--port", str(port), *options]) == 0
    assert models == [name]


def test_a_model_that_the_server_lacks(serve: Callable[..., Running], capsys: Any) -> None:
    arguments = ["--server", serve().url, "--port", "0", "--model", "nonsense"]
    assert cli.run(["osc", PROMPT, *arguments]) == 2
    assert "random" in capsys.readouterr().err  # what it has


def test_a_stream_of_this_process(random_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    port, done, path = free_port(socket.SOCK_DGRAM), threading.Event(), tmp_path / "out.mp4"

    def stop() -> None:
        """Until it is heard: nothing tells when the port is open."""
        sender = SimpleUDPClient("127.0.0.1", port)
        while not done.wait(0.05):
            try:
                sender.send_message("/pyrf/stop", [])
            except ConnectionRefusedError:
                continue

    with beside(stop):
        try:
            arguments = ["-o", str(path), "--port", str(port), "--model", str(random_bundle)]
            assert cli.run(["osc", PROMPT, *arguments]) == 0
        finally:
            done.set()
    out = capsys.readouterr().out.splitlines()
    with av.open(str(path)) as container:
        assert '"steered": "OSC"' in container.metadata["comment"]
        count = sum(1 for _ in container.decode(video=0))
    assert out == [f"listening for OSC on 127.0.0.1:{port}", f"{path}: {count} frames"]


class Scripted:
    """A show of four frames, before each of which something is sent; `log` says what it was asked for."""

    def __init__(self, log: list[Any], sent: dict[int, Callable[[], None]], prompt: str, seed: int) -> None:
        self._log, self._sent, self._count = log, sent, 0
        log.append((prompt, seed))

    def set_prompt(self, prompt: str, *, over: float = 0.0) -> None:
        if prompt == "bad":
            raise ValueError("no such prompt")
        self._log.append((prompt, over))

    def set_adapters(self, strengths: Any) -> None:
        self._log.append(strengths)

    def pause(self, paused: bool) -> None:
        self._log.append(paused)

    def frames(self) -> Any:
        self._count += 1
        self._sent.get(self._count, lambda: None)()
        return None if self._count == 5 else np.full((1, 2, 2, 3), self._count, np.uint8)

    def close(self) -> None:
        self._log.append("closed")


def test_a_seed_begins_again_with_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused prompt is not, and a pause goes on being one."""
    monkeypatch.setattr("pyrf.commands.osc_show.STEER_S", 0.0)
    log: list[Any] = []
    frames: list[int] = []
    told: list[str] = []
    osc = OscListener(0, complain=told.append)

    def ask(**wishes: Any) -> Callable[[], None]:
        return lambda: vars(osc._asked).update(wishes)

    sent = {
        1: ask(prompt=(BLUE, 2.0)),
        2: ask(prompt=("bad", 0.0)),
        3: ask(paused=False),  # it is not paused
        4: ask(seed=0),  # the same
    }
    seeds = iter([ask(seed=9, paused=True), ask(stop=True)])
    original = osc.steer

    def steer(show: Any) -> Any:
        if log.count("closed") == 0 and len(frames) == 4:
            next(seeds)()
        return original(show)

    monkeypatch.setattr(osc, "steer", steer)
    waits = iter([ask(stop=True)])
    monkeypatch.setattr(osc, "wait", lambda seconds=None: next(waits)())
    sink: Any = SimpleNamespace(write=lambda given: frames.append(int(given[0, 0, 0, 0])))
    perform(lambda prompt, seed: Scripted(log, sent, prompt, seed), PROMPT, 0, osc, sink)
    osc.close()
    assert frames == [1, 2, 3, 4]
    assert log == [(PROMPT, 0), (BLUE, 2.0), True, "closed", (BLUE, 9), True, "closed"]
    assert told == ["no such prompt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give -o, where frames go, or --server"),
        (["--server", "http://127.0.0.1:1", "--lora", "x.safetensors"], "the server has its model"),
        (["--server", "http://127.0.0.1:1", "--device", "cuda"], "the server has its model"),
        (["-o", "x.abc"], "unknown extension"),
        (["-o", "x.mp4", "--host", "0.0.0.0", "--port", "0"], "OSC knows no password"),
        (["-o", "x.mp4", "--port", "70000"], "cannot listen for OSC on 127.0.0.1:70000"),
        (["--server", "nonsense", "--port", "0"], "http"),
    ],
)
def test_what_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["osc", PROMPT, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
