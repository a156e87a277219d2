"""The page shows what a language model has made of a prompt, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from tests.support.browser import Visit, find_chromium
from tests.support.chat_endpoint import as_chat, chat_endpoint
from tests.support.running import BLUE, PROMPT, Running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


def answer(_: str, body: Any) -> tuple[int, bytes]:
    """Of the first prompt it makes what would be HTML; of the second nothing."""
    prompt = body["messages"][-1]["content"]
    return as_chat("<b>dusk</b>") if prompt == PROMPT else (500, b"")


def test_the_expanded_prompt_is_shown(serve: Callable[..., Running], visit: Callable[..., Visit]) -> None:
    with chat_endpoint(answer) as endpoint:
        server = serve(expand=endpoint.url)
        v = visit(int(server.url.rpartition(":")[2]))
        v.start(PROMPT)
        shown = v.page.locator("#expanded")
        expect(shown).to_have_text("Shown as: <b>dusk</b>")
        v.send(BLUE)
        expect(shown).to_be_hidden()
        expect(v.page.locator("#notices")).to_contain_text("it is shown as it is")
