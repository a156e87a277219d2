"""The sliders of adapters on the page, in a real Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.support import adapters

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import Browser, expect

from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support.browser import Visit, find_chromium
from tests.support.running import PROMPT, ROOMY, Running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

MOVE = """(value) => {
  const slider = document.querySelector("#adapter-list input");
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
}"""


@pytest.fixture(scope="module")
def inked(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> StreamingPipeline:
    file = tmp_path_factory.mktemp("adapters") / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors()), file)
    return StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(file, 0.5)])


def test_a_slider_steers_the_running_stream(browser: Browser, inked: StreamingPipeline) -> None:
    with Running(inked, ServeSettings(**{**ROOMY, "max_sessions": 1})) as server:
        v = Visit(browser, f"{server.url}/")
        v.await_state("idle")
        slider = v.page.get_by_label("ink")
        expect(slider).to_have_value("0.5")
        expect(slider).to_be_enabled()
        v.start(PROMPT)
        v.page.evaluate(MOVE, 1.25)
        expect(v.page.locator("#adapter-list output")).to_have_text("1.25")
        server.wait_until(lambda: inked.adapters == {"ink": 1.25})
        # Somebody else changes it: the slider follows.
        session = v.session
        headers = {"Authorization": f"Bearer {session['token']}"}
        body = {"strengths": {"ink": -1.0}}
        server.http.post(f"/v1/sessions/{session['id']}/adapters", json=body, headers=headers)
        expect(slider).to_have_value("-1")
        # A stream that begins anew has what was chosen here.
        v.page.click("#restart")
        v.await_state("live")
        server.wait_until(lambda: inked.adapters == {"ink": 1.25})
        v.page.click("#stop")
        v.await_state("ended")
        v.close()
        assert v.problems == []


def test_viewers_who_share_adapters_see_that_these_are_fixed(
    browser: Browser, inked: StreamingPipeline
) -> None:
    with Running(inked, ServeSettings(**ROOMY)) as server:
        v = Visit(browser, f"{server.url}/")
        v.await_state("idle")
        expect(v.page.get_by_label("ink")).to_be_disabled()
        expect(v.page.locator("#adapters-fixed")).to_be_visible()
        v.close()


def test_a_model_without_adapters_has_no_sliders(browser: Browser, random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    with Running(pipe, ServeSettings(**ROOMY)) as server:
        v = Visit(browser, f"{server.url}/")
        v.await_state("idle")
        expect(v.page.locator("#adapters")).to_be_hidden()
        v.close()
