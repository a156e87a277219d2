"""The choice of a model on the page, in a real Chromium.

Screenshots for the documentation: PYRF_SCREENSHOTS=docs/img pytest tests/serve/page/test_models.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import Browser, Route, expect

from pyrf.bundle import load_bundle
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from pyrf.worlds.shapes.detector import detect
from tests.support.browser import Visit, find_chromium
from tests.support.other_model import other_pipe
from tests.support.running import OTHER, PROMPT, ROOMY, Running
from tests.support.serving import stopping_well

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def both(pipe: StreamingPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    other = other_pipe(tmp_path_factory.mktemp("models"))
    with Running(pipe, ServeSettings(**ROOMY), others={"other": other}) as running:
        yield running


@pytest.fixture
def bundled() -> Iterator[str]:
    """The URL of a `pyrf serve` of both bundled models, one of them by another name."""
    with stopping_well("--model", "valley", "--model", "shapes=tiny") as greeting:
        found = re.fullmatch(r"pyrf serves valley, shapes at (\S+)\n", greeting)
        assert found is not None, greeting
        yield found[1]


def test_the_bundled_models_from_the_command_line(browser: Browser, bundled: str) -> None:
    v = Visit(browser, f"{bundled}/")
    v.await_state("idle")
    expect(v.page.locator("#served")).to_contain_text("valley")
    chips = [phrase for phrases in load_bundle("valley").card.choices.values() for phrase in phrases]
    expect(v.page.locator("#choices button")).to_have_text(chips)
    v.picture("models")
    v.page.click("#send")  # what the page itself proposes
    v.await_state("live")
    v.until("(({ width, height }) => width === 320 && height === 192)(document.getElementById('canvas'))")
    stage = v.page.locator("#stage").bounding_box()
    assert stage is not None
    assert stage["width"] > 2 * 320
    v.page.click("#stop")
    v.await_state("ended")
    v.page.select_option("#model", "shapes")
    expect(v.page.locator("#served")).to_contain_text("shapes")
    v.start("a large red circle moves right slowly on a grey background")
    seen = detect(v.frames(8))
    assert (seen.color, seen.shape) == ("red", "circle")
    v.page.click("#stop")
    v.await_state("ended")
    v.close()
    assert v.problems == []


@pytest.fixture
def visit(browser: Browser, both: Running) -> Iterator[Visit]:
    v = Visit(browser, f"{both.url}/")
    v.await_state("idle")
    yield v
    v.close()
    assert v.problems == []
    both.wait_until(lambda: not both.registry.live)


def test_another_model_brings_its_own_page_and_the_next_start_uses_it(both: Running, visit: Visit) -> None:
    v = visit
    chosen, prompt = v.page.locator("#model"), v.page.locator("#prompt")
    expect(chosen).to_have_value("random")
    expect(v.page.locator("#model option")).to_have_text(["random", "other"])
    expect(v.page.locator("#choices")).to_be_hidden()
    expect(v.page.locator("#knows")).to_be_hidden()

    v.page.select_option("#model", "other")
    expect(v.page.locator("#served")).to_contain_text("other · torch on cpu, float32 · 48")
    expect(v.page.locator("#choices button")).to_have_text(["red", "blue"])
    expect(v.page.locator("#model-limits")).to_have_text("It shows noise.")
    expect(prompt).to_have_value("a blue square")  # in place of what the page itself had written
    expect(v.page.locator("#seed")).to_have_value("7")

    with v.page.expect_request("**/v1/sessions") as asked:
        v.start(PROMPT)
    assert (asked.value.post_data_json or {})["model"] == "other"
    v.until("document.getElementById('canvas').height === 64")
    expect(chosen).to_be_disabled()  # a stream keeps its model
    assert v.page.evaluate("location.hash").endswith("&model=other")

    v.page.reload()
    v.await_state("resumed", "live")
    expect(chosen).to_have_value("other")
    v.page.click("#stop")
    v.await_state("ended")
    v.page.fill("#prompt", OTHER)
    v.page.select_option("#model", "random")
    expect(v.page.locator("#choices")).to_be_hidden()
    expect(v.page.locator("#knows")).to_be_hidden()
    expect(prompt).to_have_value(OTHER)  # a person wrote it
    v.page.press("#prompt", "Enter")
    v.await_state("live")
    v.until("document.getElementById('canvas').height === 32")
    assert v.page.evaluate("location.hash").endswith("&model=random")
    v.page.click("#stop")
    v.await_state("ended")


def test_a_link_names_a_model(visit: Visit) -> None:
    v = visit
    v.page.evaluate("location.hash = 'prompt=a+red+circle&seed=5&model=other'")
    expect(v.page.locator("#choices button")).to_have_text(["red", "blue"])
    expect(v.page.locator("#prompt")).to_have_value("a red circle")
    expect(v.page.locator("#model")).to_have_value("other")
    v.page.reload()
    expect(v.page.locator("#model")).to_have_value("other")
    expect(v.page.locator("#seed")).to_have_value("5")
    v.page.evaluate("location.hash = 'prompt=a+red+circle&model=third'")
    expect(v.page.locator("#problem")).to_contain_text("there is no model 'third'; there are: random, other")
    expect(v.page.locator("#model")).to_have_value("random")
    v.await_state("idle")


def test_a_kept_stream_comes_with_its_model(visit: Visit) -> None:
    """Whatever the link says that the page is opened with."""
    v = visit
    v.page.select_option("#model", "other")
    v.start(PROMPT)
    id = v.session["id"]
    v.page.evaluate("history.replaceState(null, '', '#prompt=a+red+circle&model=random')")
    v.page.reload()
    v.await_state("resumed", "live")
    expect(v.page.locator("#model")).to_have_value("other")
    expect(v.page.locator("#served")).to_contain_text("other")
    assert v.session["id"] == id
    v.page.click("#stop")
    v.await_state("ended")


def test_who_is_quicker_than_the_page_has_the_model_of_the_link(visit: Visit) -> None:
    v = visit
    held: list[Route] = []
    v.page.evaluate("history.replaceState(null, '', '#model=other')")
    v.page.route("**/v1/model?*", lambda route: held.append(route))
    with v.page.expect_request("**/v1/model?*"):
        v.page.reload()
    v.page.fill("#prompt", PROMPT)
    v.page.press("#prompt", "Enter")
    v.await_state("live")
    id = v.session["id"]
    v.until("document.getElementById('canvas').height === 64")
    held[0].continue_()
    expect(v.page.locator("#served")).to_contain_text("other")
    assert v.session["id"] == id
    assert v.page.get_attribute("body", "data-state") == "live"
    v.page.click("#stop")
    v.await_state("ended")


def test_of_two_choices_the_last_one_counts(visit: Visit) -> None:
    v = visit
    held: list[Route] = []
    v.page.route("**/v1/model?*other", lambda route: held.append(route))
    with v.page.expect_request("**/v1/model?*other"):
        v.page.select_option("#model", "other")
    v.page.select_option("#model", "random")
    v.redraws(10)
    with v.page.expect_response("**/v1/model?*other"):
        held[0].continue_()
    v.redraws(30)
    expect(v.page.locator("#model")).to_have_value("random")
    expect(v.page.locator("#served")).to_contain_text("random")
    expect(v.page.locator("#choices")).to_be_hidden()


def test_a_server_of_one_model_offers_no_choice(browser: Browser, server: Running) -> None:
    v = Visit(browser, f"{server.url}/")
    v.await_state("idle")
    expect(v.page.locator("#model")).to_be_hidden()
    with v.page.expect_request("**/v1/sessions") as asked:
        v.start("a red circle")
    assert "model" not in (asked.value.post_data_json or {})
    assert "model" not in v.page.evaluate("location.hash")
    v.page.click("#stop")
    v.await_state("ended")
    v.close()
    assert v.problems == []
