"""A server whose streams are made as its start says: the bundled model in chunks of one latent frame."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect

from pyrf import cli
from pyrf.client import Client
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support.browser import Visit, chromium, find_chromium
from tests.support.running import ROOMY, Running, read_frames

PROMPT = "a large red circle moves right slowly on a grey background"
ASKED = ["chunk_frames=1", "window=9", "sink=1", "steps=1000,500", "first_chunk_steps=1000,750,500,250"]


@pytest.fixture(scope="module")
def framewise() -> Iterator[Running]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pipe = StreamingPipeline.from_pretrained("tiny", stream=ASKED)
    with Running(pipe, ServeSettings(**ROOMY)) as running:
        yield running
    torch.set_num_threads(threads)


def test_programs_are_told(framewise: Running) -> None:
    with Client(framewise.url) as client:
        info = client.server_info()
    assert info.stream is not None
    assert info.stream.model_dump() == {
        "preset": None,
        "latent_frames": 1,
        "window_frames": 9,
        "sink_frames": 1,
        "sink_alpha": 0.999,
        "steps": [1000, 500],
        "first_chunk_steps": [1000, 750, 500, 250],
        "shift": 3.0,
        "sampler": "renoise",
    }
    assert info.frames_in_chunk == 4


def test_frames_are_counted_as_they_are_sent(framewise: Running) -> None:
    """One frame, then four a chunk."""
    created = framewise.create(PROMPT, pace="max", seed=3)
    with framewise.attach(created) as viewer:
        headers = [header for header, _ in read_frames(viewer, 9)]
    framewise.delete(created)
    assert [header.chunk for header in headers] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert [header.frame for header in headers] == list(range(9))
    assert [header.frames_in_chunk for header in headers] == [1, *8 * [4]]
    assert headers[-1].pts_s == pytest.approx(8 / framewise.pipe.fps)


def test_a_session_cannot_change_it(framewise: Running) -> None:
    """The weights are trained for it, and sessions share their calls."""
    response = framewise.http.post("/v1/sessions", json={"prompt": PROMPT, "stream": "window=3"})
    assert response.status_code == 422
    assert "stream: Extra inputs are not permitted" in response.json()["error"]["message"]


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
def test_people_are_told_and_see_it(framewise: Running) -> None:
    with chromium() as browser:
        visited = Visit(browser, f"{framewise.url}/", viewport={"width": 360, "height": 740})
        visited.await_state("idle")
        told = "1 latent frame a chunk, 9 seen, sink 1, 2 steps, at first 4, renoise"
        expect(visited.page.locator("#streams")).to_have_text(told)
        assert visited.page.evaluate("document.documentElement.scrollWidth") == 360
        visited.start(PROMPT)
        visited.until("Number(document.getElementById('canvas').dataset.frame) >= 6")
        expect(visited.page.locator("#streams")).to_have_text(told)
        session = visited.session
        visited.close()
        assert visited.problems == []
    framewise.delete({"id": session["id"], "token": session["token"]})


def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pyrf.serve.server.run", lambda *_, **__: pytest.fail("the server was started"))
    assert cli.run(["serve", "--model", str(random_bundle), "--port", "0", "--stream", "self-forcin"]) == 2
    assert "no stream 'self-forcin'; did you mean self-forcing?" in capsys.readouterr().err


def test_a_named_student_is_told_by_its_name(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), stream="self-forcing")
    with Running(pipe, ServeSettings(**ROOMY)) as running:
        told = running.http.get("/v1/model").json()["stream"]
    assert (told["preset"], told["window_frames"], told.get("first_chunk_steps")) == (
        "self-forcing",
        21,
        None,
    )
