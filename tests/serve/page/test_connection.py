"""The page while its server is lost, full, slow to answer, or shuts down."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest

from tests.support.cable import Cable

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import Route, expect

from tests.support.browser import Visit, find_chromium
from tests.support.running import Running
from tests.support.shapes_page import RED, shows

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


def test_a_lost_connection_resumes_the_same_stream(
    port: int, cable: Cable, visit: Callable[..., Visit]
) -> None:
    v = visit(cable.port)
    v.start(RED)
    before, seen = v.session, v.frame
    cable.unplug()
    v.await_state("lost")
    v.picture("lost")
    cable.plug()
    v.await_state("resumed")
    v.picture("resumed")
    assert v.session == before
    assert v.frame > seen
    shows(v, "red", "circle")
    v.await_state("live")
    # An hour later it is lost anew: how long it was gone counts from here.
    v.page.evaluate(
        "() => { const now = performance.now.bind(performance); performance.now = () => now() + 3.6e6; }"
    )
    seen = v.frame
    cable.unplug()
    v.await_state("lost", "ended")
    assert v.page.get_attribute("body", "data-state") == "lost"
    cable.plug()
    v.await_state("resumed")
    assert v.session == before
    assert v.frame > seen
    v.await_state("live")
    v.page.reload()
    v.await_state("resumed")
    assert v.session == before
    headers = {"Authorization": f"Bearer {before['token']}"}
    info = httpx.get(f"http://127.0.0.1:{port}/v1/sessions/{before['id']}", headers=headers).json()
    assert info["state"] == "running"


def test_who_is_quicker_than_the_page_keeps_the_stream(port: int, visit: Callable[..., Visit]) -> None:
    """Enter before the page knows its model; then the reply that it waited for."""
    v = visit(port)
    v.await_state("idle")
    held: list[Route] = []
    v.page.route("**/v1/model", lambda route: held.append(route))
    with v.page.expect_request("**/v1/model"):
        v.page.reload()
    expect(v.page.locator("#send")).to_be_disabled()
    v.page.fill("#prompt", RED)
    v.page.press("#prompt", "Enter")
    v.await_state("live")
    session, seen = v.session, v.frame
    held[0].continue_()
    expect(v.page.locator("#served")).to_contain_text("tiny")
    v.until(f"Number(document.getElementById('canvas').dataset.frame) > {seen + 32}")
    assert v.page.get_attribute("body", "data-state") == "live"
    assert v.session == session


def test_a_full_server_is_tried_again(port: int, visit: Callable[..., Visit]) -> None:
    server = httpx.Client(base_url=f"http://127.0.0.1:{port}")
    taken = server.post("/v1/sessions", json={"prompt": RED}).json()
    v = visit(port)
    v.send(RED)
    v.await_state("full")
    expect(v.page.locator("#countdown")).to_contain_text(re.compile(r"next try in \d s"))
    v.picture("full")
    with v.page.expect_response("**/v1/sessions") as impatient:
        v.page.press("#prompt", "Enter")
    assert impatient.value.status == 503
    v.await_state("full")
    headers = {"Authorization": f"Bearer {taken['token']}"}
    assert server.delete(f"/v1/sessions/{taken['id']}", headers=headers).status_code == 204
    v.await_state("live")  # by itself


def test_a_server_that_shuts_down_says_so(serve: Callable[..., Running], visit: Callable[..., Visit]) -> None:
    running = serve()
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.start("a red circle")
    running.run(running.registry.drain())
    v.await_state("ended")
    expect(v.page.locator("#state")).to_contain_text("the server shuts down")
