"""A server whose model is still loading, and one whose model cannot be had."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.app import create_app
from pyrf.serve.loading import LoadingApp, Report
from pyrf.serve.metrics import Metrics
from pyrf.serve.server import Server, bind
from pyrf.serve.settings import ServeSettings
from tests.support.running import PROMPT, TIMEOUT, own_logging

__all__ = ["own_logging"]


class Slow:
    """A server whose app is made when a test says so.

    Attributes:
        progress: what the maker of the app reports before it waits.
        release: set to let it go on.
        loaded: set once the app is there.
    """

    def __init__(self, pipe: StreamingPipeline, **settings: Any) -> None:
        self.release, self.waiting, self.loaded = (threading.Event() for _ in range(3))
        self.failure: Exception | None = None
        self._pipe, self._settings = pipe, ServeSettings(**settings)
        self._socket = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def _make(self, report: Report) -> FastAPI:
        report(0.25)
        self.waiting.set()
        assert self.release.wait(TIMEOUT)
        if self.failure is not None:
            raise self.failure
        return create_app(lambda: self._pipe, model="slow", settings=self._settings)

    def _run(self) -> None:
        async def main() -> None:
            app = LoadingApp(
                self._make,
                self._settings,
                Metrics(),
                on_loaded=self.loaded.set,
                on_failed=lambda error: self.server.fail(error),
            )
            self.server = Server(app)
            await self.server.serve([self._socket])

        asyncio.run(main())

    def __enter__(self) -> Slow:
        self._thread.start()
        assert self.waiting.wait(TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.join()
        self.release.set()

    def join(self) -> None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


@pytest.fixture
def slow(pipe: StreamingPipeline) -> Iterator[Slow]:
    with Slow(pipe) as slow:
        yield slow


def test_what_a_loading_server_answers(slow: Slow) -> None:
    with httpx.Client(base_url=slow.url, timeout=TIMEOUT) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        assert client.get("/").status_code == 200
        assert client.get("/static/app.js").status_code == 200
        for reply in (
            client.get("/health/ready"),
            client.get("/v1/model"),
            client.post("/v1/sessions", json={"prompt": PROMPT}),
            client.delete("/v1/sessions/x"),
            client.get("/metrics"),
        ):
            assert reply.status_code == 503
            error = reply.json()["error"]
            assert (error["code"], error["progress"]) == ("loading", 0.25)
            assert "25%" in error["message"]
            assert int(reply.headers["retry-after"]) >= error["retry_after"] > 0
        with pytest.raises(InvalidStatus) as refused, connect(f"ws{slow.url[4:]}/v1/sessions/x/ws"):
            pass
        assert refused.value.response.status_code == 503
        assert client.get("/v1/model", headers={"Host": "evil.example"}).status_code == 403
        slow.release.set()
        assert slow.loaded.wait(TIMEOUT)
        assert client.get("/health/ready").json() == {"status": "ready"}
        assert client.post("/v1/sessions", json={"prompt": PROMPT}).status_code == 201


def test_a_server_can_end_while_it_loads(slow: Slow) -> None:
    slow.server.should_exit = True
    slow.join()  # it does not wait for the model
    assert not slow.loaded.is_set()


def test_a_model_that_cannot_be_had_ends_the_server(pipe: StreamingPipeline) -> None:
    with Slow(pipe) as slow:
        slow.failure = KeyError("blocks.0.weight")
        slow.release.set()
        slow.join()
        assert slow.server.failure is slow.failure


def test_a_fault_while_warming_up_ends_the_server(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(StreamingPipeline, "stream", fail)
    with Slow(pipe) as slow:
        slow.release.set()
        slow.join()
        assert str(slow.server.failure) == "no kernel"


@pytest.mark.usefixtures("own_logging")
def test_any_failure_to_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("blocks.0.weight")

    monkeypatch.setattr("pyrf.loading.load", fail)
    assert cli.run(["serve", "--port", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the model cannot be loaded: KeyError: 'blocks.0.weight'\n"
    assert captured.out == ""


@contextmanager
def browser_page(url: str) -> Iterator[Any]:
    pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")
    from tests.support.browser import Visit, chromium, find_chromium

    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with chromium() as browser:
        visit = Visit(browser, f"{url}/")
        yield visit
        visit.close()


def test_the_page_waits_and_goes_on_by_itself(slow: Slow) -> None:
    with browser_page(slow.url) as visit:
        visit.await_state("loading")
        assert visit.page.locator("#state").inner_text() == "The model is being loaded: 25 %"
        assert visit.page.locator("#send").is_disabled()
        slow.release.set()
        visit.await_state("idle")
        assert "slow" in visit.page.locator("#served").inner_text()
