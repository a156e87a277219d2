"""The page gives away where others may watch, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import Dialog, expect

from tests.support.browser import Visit, find_chromium
from tests.support.running import PROMPT, TIMEOUT, Running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

ENDS = {"whep": "/whep", "hls": "/hls/live.m3u8", "jpeg": "/frames.mjpeg"}


def test_addresses_are_copied_while_a_stream_runs(server: Running, visit: Callable[..., Visit]) -> None:
    port = int(server.url.rpartition(":")[2])
    v = visit(port, permissions=["clipboard-read", "clipboard-write"])
    v.await_state("idle")
    field, chosen = v.page.locator("#watch-field"), v.page.locator("#watch")
    expect(field).to_be_hidden()
    v.start(PROMPT)
    for reloaded in (False, True):
        if reloaded:
            v.page.reload()
            v.await_state("resumed", "live")
        found = {}
        for kind in ENDS:
            chosen.select_option(kind)
            expect(v.page.locator("#copied")).to_contain_text("whoever has it may watch")
            expect(chosen).to_have_value("")
            found[kind] = v.page.evaluate("navigator.clipboard.readText()")
        below = f"{server.url}/v1/sessions/{v.session['id']}/watch/"
        for kind, url in found.items():
            key, _, end = url.removeprefix(below).partition("/")
            assert (len(key), f"/{end}") == (43, ENDS[kind])
    with httpx.stream("GET", found["jpeg"], timeout=TIMEOUT) as response:
        assert response.headers["content-type"].startswith("multipart/x-mixed-replace")
    assert httpx.options(found["whep"]).headers["accept-post"] == "application/sdp"
    assert httpx.get(found["hls"], timeout=TIMEOUT).text.startswith("#EXTM3U\n")
    v.page.click("#stop")
    expect(field).to_be_hidden()


def test_without_a_clipboard_the_address_is_shown(server: Running, visit: Callable[..., Visit]) -> None:
    v = visit(int(server.url.rpartition(":")[2]))
    v.await_state("idle")
    v.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    shown: list[str] = []

    def answer(dialog: Dialog) -> None:
        shown.append(dialog.default_value)
        dialog.dismiss()

    v.page.on("dialog", answer)
    v.start(PROMPT)
    v.page.locator("#watch").select_option("hls")
    expect(v.page.locator("#watch")).to_have_value("")
    assert [url.endswith("/hls/live.m3u8") for url in shown] == [True]
