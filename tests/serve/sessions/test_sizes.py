"""Frame sizes that have to be exported first: nobody else waits for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pyrf.config import LatentSize
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.sessions import sizes
from tests.serve.test_limits import error_of
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.running import PROMPT, TIMEOUT, Running, read_frames


class Exports:
    """Stands in for a backend of exported graphs, whose exports take as long as a test wants."""

    def __init__(self, pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = pipe.model.backend
        self.ready = {pipe.model.latent_size(HEIGHT, WIDTH)}
        self.asked: list[LatentSize] = []
        self.threads: list[str] = []
        self.go = threading.Event()
        self.problem: Exception | None = None
        monkeypatch.setattr(backend, "is_ready", lambda size: size in self.ready)
        monkeypatch.setattr(backend, "prepare", self._prepare)

    def _prepare(self, size: LatentSize) -> None:
        self.asked.append(size)
        self.threads.append(threading.current_thread().name)
        assert self.go.wait(TIMEOUT)
        if self.problem is not None:
            raise self.problem
        self.ready.add(size)


@pytest.fixture
def exports(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exports]:
    exports = Exports(pipe, monkeypatch)
    yield exports
    exports.go.set()


@contextmanager
def watched(server: Running) -> Iterator[None]:
    """Streams go on within."""
    created = server.create(pace="max")
    with server.attach(created) as socket:
        yield
        assert len(read_frames(socket, 24)) == 24
    server.delete(created)


def ask(server: Running, height: int, path: str = "/v1/sessions"):
    return server.http.post(path, json={"prompt": PROMPT, "height": height, "width": WIDTH})


def test_a_new_size_is_prepared_beside_the_streams(serve: Callable[..., Running], exports: Exports) -> None:
    server = serve(max_pixels=10**6)
    with watched(server):
        for path in ("/v1/sessions", "/v1/videos", "/v1/sessions"):
            error = error_of(ask(server, 2 * HEIGHT, path), 503)
            assert error["code"] == "preparing"
            assert error["retry_after"] > 0
    assert exports.threads == ["pyrf-prepare"]  # once, and not in the model's thread
    exports.go.set()
    server.wait_until(lambda: not server.registry.admission._sizes._is_preparing)
    response = ask(server, 2 * HEIGHT)
    assert response.status_code == 201
    assert response.json()["height"] == 2 * HEIGHT
    server.delete(response.json())
    assert len(exports.asked) == 1


def test_a_size_that_cannot_be_prepared(serve: Callable[..., Running], exports: Exports) -> None:
    server = serve(max_pixels=10**6)
    exports.problem = ValueError("the disk is full\nreally")
    exports.go.set()
    assert error_of(ask(server, 2 * HEIGHT), 503)["code"] == "preparing"
    server.wait_until(lambda: not server.registry.admission._sizes._is_preparing)
    error = error_of(ask(server, 2 * HEIGHT), 422)
    assert (error["code"], "cannot be prepared: the disk is full" in error["message"]) == ("bad_size", True)


def test_only_a_few_sizes_are_prepared(serve: Callable[..., Running], exports: Exports) -> None:
    server = serve(max_pixels=10**6)
    exports.go.set()
    for i in range(sizes.MAX_PREPARED):
        assert error_of(ask(server, (2 + i) * HEIGHT), 503)["code"] == "preparing"
        server.wait_until(lambda: not server.registry.admission._sizes._is_preparing)
    error = error_of(ask(server, 20 * HEIGHT), 422)
    assert error["code"] == "bad_size"
    assert f"{2 * HEIGHT} x {WIDTH}" in error["message"]
    assert len(exports.asked) == sizes.MAX_PREPARED


def test_one_size_at_a_time(serve: Callable[..., Running], exports: Exports) -> None:
    server = serve(max_pixels=10**6)
    for i in range(3):
        assert error_of(ask(server, (2 + i) * HEIGHT), 503)["code"] == "preparing"
    exports.go.set()
    server.wait_until(lambda: not server.registry.admission._sizes._is_preparing)
    assert len(exports.asked) == 1
