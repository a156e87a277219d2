"""What the page asks for and of whom, what it never tells, and texts that are none of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from pyrf.bundle import Card, Shown
from pyrf.pipeline import StreamingPipeline
from tests.support.browser import Visit, find_chromium
from tests.support.running import Running
from tests.support.shapes_page import RED, picked

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


@pytest.mark.parametrize("transport", ["websocket", "webrtc"])
def test_tokens_are_in_no_address(
    serve: Callable[..., Running], visit: Callable[..., Visit], transport: str
) -> None:
    token = "the-servers-own-token"
    running = serve(token=token)
    v = visit(int(running.url.rsplit(":", 1)[1]))
    sockets: list[str] = []
    v.page.on("websocket", lambda socket: sockets.append(socket.url))
    v.await_state("locked")
    v.page.fill("#token", token)
    v.page.keyboard.press("Enter")
    v.await_state("idle")
    v.page.select_option("#transport", transport)
    v.start("a red circle")
    seen = [
        *v.requested,
        *sockets,
        v.page.url,
        v.page.evaluate("JSON.stringify(history.state)"),
        v.page.content(),
    ]
    assert bool(sockets) == (transport == "websocket")
    for secret in (token, v.session["token"]):
        assert not [text for text in seen if secret in text]


def test_loads_nothing_from_elsewhere(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    own = f"http://127.0.0.1:{port}/"
    assert [url for url in v.requested if not url.startswith((own, f"blob:{own}"))] == []
    policy = httpx.get(own).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{own}static/../settings.py").status_code == 404
    assert httpx.get(f"{own}static/settings.py").status_code == 404


def test_a_server_with_a_token_asks_for_it(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    running = serve(token="secret")
    v = visit(int(running.url.rsplit(":", 1)[1]))
    v.await_state("locked")
    v.picture("locked")
    v.page.fill("#token", "wrong")
    v.page.keyboard.press("Enter")
    expect(v.page.locator("#problem")).not_to_be_empty()
    v.page.fill("#token", "secret")
    v.page.keyboard.press("Enter")
    v.await_state("idle")
    v.start("a red circle")


@pytest.mark.parametrize(
    "fragment",
    [
        "prompt=%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'x'%22%3E&seed=1e3",
        "prompt=%3C%2Ftextarea%3E%3Cscript%3Edocument.title%3D'x'%3C%2Fscript%3E&seed=-1",
        "prompt=javascript:document.title%3D'x'&seed=99999999999999999999",
        "prompt=%E0%A4%A&seed=%00",
        f"prompt={'a' * 9000}&seed=9007199254740993",
    ],
)
def test_a_hostile_link_is_text(port: int, visit: Callable[..., Visit], fragment: str) -> None:
    v = visit(port)
    v.page.goto(f"{v.page.url}#{fragment}")
    v.page.reload()
    v.await_state("idle")
    given = parse_qs(fragment)["prompt"][0]
    expect(v.page.locator("#prompt")).to_have_value(given[:2000])
    expect(v.page.locator("#seed")).to_have_value("0")
    v.page.click("#send")
    v.await_state("live")
    v.redraws(10)
    assert v.page.title() == "pyrf"
    assert v.page.locator("img, main script").count() == 0


def test_a_cards_words_are_text(
    pipe: StreamingPipeline,
    serve: Callable[..., Running],
    visit: Callable[..., Visit],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And phrases of signs that mean something in a pattern are found as they stand."""
    bad = "<img src=x onerror=\"document.title='x'\">"
    card = Card(choices={bad[:40]: (f"{bad} (a|b)+ [", "$& \\d", "plain")}, gallery=(Shown(bad, 3),))
    monkeypatch.setattr(pipe, "model", replace(pipe.model, card=card))
    v = visit(int(serve().url.rsplit(":", 1)[1]))
    v.await_state("idle")
    expect(v.page.locator("#gallery button")).to_contain_text(bad)
    expect(v.page.locator(".group span")).to_have_text(bad[:40])
    v.page.fill("#prompt", "")
    for phrase in (f"{bad} (a|b)+ [", "$& \\d"):
        v.page.locator("#choices button", has_text=phrase).click()
        expect(v.page.locator("#prompt")).to_have_value(phrase)
        assert picked(v) == [phrase]
    assert v.page.title() == "pyrf"
    assert v.page.locator("img").count() == 0
