"""The page's "use my camera" in a real Chromium with its fake camera, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import Browser, expect

from tests.support.browser import Visit, find_chromium
from tests.support.running import Running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

PROMPT = "a red circle moves right"


@pytest.fixture
def visit(browser: Browser, server: Running) -> Iterator[Visit]:
    visit = Visit(browser, f"{server.url}/")
    yield visit
    visit.page.click("#stop")
    visit.await_state("ended", "idle")
    assert visit.problems == []
    visit.close()


def begin(server: Running, visit: Visit, transport: str) -> Any:
    """Start a stream with the camera on; the server's session."""
    visit.page.select_option("#transport", transport)
    visit.start(PROMPT)
    visit.page.click("#camera")
    session = server.session(visit.session)
    server.wait_until(lambda: session.restyling.shows_camera)
    return session


def is_fake_camera(session: Any) -> bool:
    """Whether what the server got is the fake camera's picture: most of it is green."""
    red, green, blue = np.median(session.restyling.camera.feed._kept[-1][1], axis=(0, 1))
    return bool(green > red + 40 and green > blue + 40)


def set_strength(visit: Visit, percent: int) -> None:
    visit.page.locator("#strength").fill(str(percent))
    shown = visit.page.locator("#strength-shown")
    expect(shown).to_have_attribute("data-taken", f"{percent / 100:g}")


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_the_camera_is_restyled_beside_itself(server: Running, visit: Visit, transport: str) -> None:
    session = begin(server, visit, transport)
    assert is_fake_camera(session)
    own, made = (
        visit.page.locator(name).bounding_box() for name in ("#own", "#canvas:visible, #video:visible")
    )
    assert own is not None
    assert made is not None
    assert own["x"] + own["width"] <= made["x"] + 1
    assert abs(own["y"] - made["y"]) < 2
    set_strength(visit, 25)
    assert session.stream.strength == 0.25 or session.restyling.strength == 0.25
    visit.page.check("#follow-motion")
    box = visit.page.locator("#follow-motion")
    expect(box).to_have_attribute("data-taken", "true")
    server.wait_until(lambda: session.stream.follow_motion)
    assert session.stream.strength == 0.25
    visit.page.click("#camera")
    server.wait_until(lambda: session.restyling.camera is None and not session.restyling.shows_camera)
    expect(visit.page.locator("#own")).to_be_hidden()


def test_the_camera_stays_on_over_a_new_stream(server: Running, visit: Visit) -> None:
    first = begin(server, visit, "websocket")
    set_strength(visit, 40)
    visit.page.click("#restart")
    visit.until("document.body.dataset.state === 'live'")
    server.wait_until(lambda: first.ending is not None)
    session = server.session(visit.session)
    assert session is not first
    server.wait_until(lambda: session.restyling.shows_camera)
    assert session.restyling.strength == 0.4
