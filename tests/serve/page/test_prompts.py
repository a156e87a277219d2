"""The page's blends and transitions in a real Chromium, and what it says of a change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from pyrf.worlds.shapes.detector import detect
from tests.support.browser import Visit, find_chromium
from tests.support.shapes_page import CLIP, RED, shows

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

BLUE = "a large blue circle moves right slowly on a grey background"

# Keeps every state that the line over the video has shown.
WATCH = """() => {
  const line = document.getElementById("change");
  window.told = [];
  new MutationObserver(() => {
    window.told.push([line.dataset.state, line.textContent]);
  }).observe(line, { attributes: true, childList: true, characterData: true, subtree: true });
}"""


def test_a_change_is_queued_on_its_way_and_in_force(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    shows(v, "red", "circle")
    v.page.evaluate(WATCH)
    v.page.fill("#over", "2")
    v.send(BLUE)
    v.until("document.getElementById('change').dataset.state === 'in-force'")
    told = [(state, text) for state, text in v.page.evaluate("window.told") if text]
    kinds = list(dict.fromkeys(state for state, _ in told))
    assert kinds == ["queued", "changing", "in-force"]
    texts = dict(reversed(told))  # the first text of each state
    assert re.fullmatch(r"Queued, shows at \d+:\d\d\.\d", texts["queued"])
    assert re.fullmatch(r"Changing, 33 %, whole at \d+:\d\d\.\d", texts["changing"])
    assert re.fullmatch(r"In force since \d+:\d\d\.\d", texts["in-force"])
    shown = {text for state, text in told if state == "changing"}
    assert {text.split(",")[1].strip() for text in shown} == {"33 %", "67 %"}
    whole = texts["changing"].split()[-1]
    assert texts["in-force"].endswith(whole)  # it kept what it had said
    shows(v, "blue", "circle")


def test_two_prompts_are_blended_by_a_slider(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    blending = v.page.locator("#blending")
    expect(blending).to_be_hidden()
    v.page.click("#blend")
    expect(blending).to_be_visible()
    expect(v.page.locator("#blend")).to_have_attribute("aria-expanded", "true")
    v.page.fill("#second", BLUE)
    v.page.locator("#share-of-second").fill("0")
    with v.page.expect_request("**/v1/sessions") as created:
        v.start(RED)
    assert created.value.post_data is not None
    assert json.loads(created.value.post_data)["prompt"] == {RED: 1, BLUE: 0}
    shows(v, "red", "circle")
    v.picture("blend")
    v.page.locator("#share-of-second").fill("100")  # a slider that is moved changes the stream at once
    expect(v.page.locator("#share-shown")).to_have_text("100 %")
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "circle")
    v.page.click("#blend")  # without the second prompt
    v.send(RED)
    v.until("document.getElementById('canvas').dataset.prompt === '2'")
    shows(v, "red", "circle")
    assert detect(v.frames(CLIP)).color == "red"


def test_the_controls_of_a_change_fit_a_phone(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port, viewport={"width": 360, "height": 740}, has_touch=True)
    v.await_state("idle")
    v.page.click("#blend")
    assert v.page.evaluate("document.documentElement.scrollWidth") == 360
    for id in ("over", "blend", "second", "share-of-second"):
        box = v.page.locator(f"#{id}").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 24
        if id != "blend":
            assert v.page.locator(f"label[for={id}]").count() == 1
