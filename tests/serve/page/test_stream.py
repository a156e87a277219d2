"""A stream on the page: it begins, changes, pauses, is recorded, ends and begins again."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from pyrf.video import Video
from pyrf.worlds.shapes.attributes import Attributes
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.scenes import Scene
from tests.support.browser import Visit, find_chromium
from tests.support.running import Running
from tests.support.shapes_page import BLUE, RED, shows

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


def test_types_a_prompt_and_sees_the_video_change(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    expect(v.page.locator("#served")).to_contain_text("tiny · torch on cpu")
    expect(v.page.locator("#streams")).to_have_text(
        "3 latent frames a chunk, 9 seen, sink 3, 4 steps, renoise"
    )
    v.picture("idle")
    v.start(RED)
    shows(v, "red", "circle")
    v.picture("live")
    id = v.session["id"]
    v.send(BLUE)
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "square")
    assert v.session["id"] == id  # the same stream
    figures = v.page.locator("#figures dd")
    for i in range(figures.count()):
        expect(figures.nth(i)).to_have_text(re.compile(r"\d"))
    v.picture("switched")


def test_starts_from_an_image(port: int, visit: Callable[..., Visit], tmp_path: Path) -> None:
    """The person chooses a file; a large one is made smaller. Without it the next stream is as before."""
    image = Scene.sample(Attributes("green", "square", "large", "still", None, "grey"), random.Random(0))
    large = Image.fromarray(image.render(0, 1)[0]).resize((2400, 1600), Image.Resampling.NEAREST)
    noisy = np.asarray(large) ^ np.random.default_rng(0).integers(0, 8, (1600, 2400, 3), np.uint8)
    Image.fromarray(noisy).save(tmp_path / "image.png")
    assert (tmp_path / "image.png").stat().st_size > 524288
    v = visit(port)
    v.await_state("idle")
    expect(v.page.locator("#start")).to_be_hidden()
    v.page.set_input_files("#image", tmp_path / "image.png")
    v.page.select_option("#start", "first_frame")
    with v.page.expect_request("**/v1/sessions") as asked:
        v.start("a large green square")
    body = asked.value.post_data_json
    assert body is not None
    assert (body["start"], body["fit"]) == ("first_frame", "crop")
    assert len(body["image"]) < 4 * 524288 / 3
    shows(v, "green", "square")
    v.picture("image")
    v.page.click("#no-image")
    expect(v.page.locator("#start")).to_be_hidden()
    with v.page.expect_request("**/v1/sessions") as asked:
        v.page.click("#restart")
    assert "image" not in (asked.value.post_data or "")
    v.await_state("live")


def test_space_pauses_outside_of_the_prompt_box(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    v.page.fill("#prompt", "a blue")
    v.page.press("#prompt", "Space")
    assert v.page.input_value("#prompt") == "a blue "
    assert v.page.get_attribute("body", "data-state") == "live"
    v.page.keyboard.press("Escape")
    v.page.keyboard.press("Space")
    v.await_state("paused")
    v.picture("paused")
    held = v.frame
    v.redraws(30)
    assert v.frame == held
    v.page.keyboard.press("Space")
    v.await_state("live")
    v.until(f"Number(document.getElementById('canvas').dataset.frame) > {held}")


def test_a_recording_holds_what_was_seen(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    v.page.click("#record")
    expect(v.page.locator("#record")).to_have_attribute("aria-pressed", "true")
    v.picture("recording")
    v.frames(24)
    with v.page.expect_download() as download:
        v.page.click("#record")
    with av.open(str(download.value.path())) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    recorded: NDArray[np.uint8] = np.stack(pictures)
    assert recorded.shape[1:] == (64, 96, 3)
    assert len(recorded) >= 16
    assert detect(recorded).color == "red"
    if folder := os.environ.get("PYRF_SCREENSHOTS"):
        Video(recorded, 16).save(Path(folder, "way-recording.png"))


def test_stop_ends_the_session_and_start_begins_another(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    first = v.session
    v.page.fill("#seed", "7")
    v.page.click("#restart")
    v.until("document.getElementById('seed-shown').textContent === '7'")
    v.await_state("live")
    assert v.session["id"] != first["id"]
    v.page.click("#stop")
    v.await_state("ended")
    v.picture("ended")
    v.start(BLUE)
    shows(v, "blue", "square")


def test_a_refused_prompt_says_why_and_the_stream_goes_on(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    running = serve(controls_per_second=0.01)
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.start("a red circle")
    v.send("a blue square")
    v.send("a green square")
    expect(v.page.locator("#problem")).to_contain_text("controls a second")
    seen = v.frame
    v.until(f"Number(document.getElementById('canvas').dataset.frame) > {seen}")


def test_the_page_tells_what_the_model_lacks(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    page, notices = v.page, v.page.locator("#notices")
    expect(page.locator("#model-limits li").first).to_contain_text("one shape per prompt")
    page.locator("summary").click()
    expect(page.locator("#vocabulary")).to_contain_text("bounces")
    expect(notices).to_be_hidden()
    v.start("a gray circle <b>\U0001f388</b>")
    expect(notices).to_be_visible()
    expect(notices.locator("li")).to_contain_text("'gray' (near: 'grey')")
    expect(notices.locator("li")).to_contain_text("'\U0001f388'")
    v.send(RED)
    expect(notices).to_be_hidden()
    v.send("a pink circle")
    expect(notices).to_be_visible()
    expect(notices.locator("li")).to_contain_text("'pink'")
