"""The page with an API key, and what it shows once that is revoked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from tests.serve.keys import test_served
from tests.support.api_keys import add_key, remove_key
from tests.support.browser import Visit, find_chromium
from tests.support.running import Running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

file = test_served.file  # a fixture


def test_a_key_lets_in_until_it_is_revoked(
    serve: Callable[..., Running], visit: Callable[..., Visit], file: Path
) -> None:
    secret = add_key(file, "studio")
    server = serve(keys=str(file))
    v = visit(int(server.url.rsplit(":", 1)[1]))
    v.await_state("locked")
    v.page.fill("#token", secret)
    v.page.keyboard.press("Enter")
    v.await_state("idle")
    v.start("a red circle")
    remove_key(file, "studio")
    v.await_state("ended")
    expect(v.page.locator("body")).to_contain_text("the key of this session was revoked; ask for another")
