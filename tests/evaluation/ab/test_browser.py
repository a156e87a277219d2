"""The page in a real Chromium, from a real `pyrf eval ab`: raters who see colours, and answer by keys.

Screenshots: PYRF_SCREENSHOTS=docs/img pytest tests/evaluation/ab/test_browser.py
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright", reason="from the extras test, serve and eval")
pytest.importorskip("fastapi", reason="from the extras test, serve and eval")
pytest.importorskip("choix", reason="from the extras test, serve and eval")
pytest.importorskip("krippendorff", reason="from the extras test, serve and eval")

from playwright.sync_api import Browser, expect

from pyrf import cli
from pyrf.video.files import Video
from tests.support.browser import TIMEOUT_S, Visit, chromium, find_chromium
from tests.support.moving_texture import moving_texture

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")

TINTS = {"red": 0, "green": 1, "blue": 2}
"""The best method first, for these raters."""
CLIPS = 3
# The strongest of the three colours of both clips.
COLOURS = """() => ["a", "b"].map((id) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(document.getElementById(id), 0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return [r, g, b].indexOf(Math.max(r, g, b));
})"""
KEYS = {"a": "ArrowLeft", "b": "ArrowRight", "same": "ArrowDown"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A server's file of votes, and the addresses of three raters."""
    folder = tmp_path_factory.mktemp("ab")
    base = moving_texture(24, 144, 256)
    for tint, channel in TINTS.items():
        (folder / tint).mkdir()
        frames = base // 2
        frames[..., channel] = base[..., channel] // 2 + 127
        for i in range(CLIPS):
            Video(np.roll(frames, 40 * i, axis=2), 16).save(folder / tint / f"a street-{i}.mp4")
    votes = folder / "votes.sqlite"
    command = [sys.executable, "-m", "pyrf", "eval", "ab", *(str(folder / tint) for tint in TINTS)]
    command += ["--votes", str(votes), "--invite", "3", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        addresses = re.findall(r"http://127\.0\.0\.1:\d+/r/\S+", "".join(lines))
        assert len(addresses) == 3, lines
        yield votes, addresses
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)


def answer(visit: Visit) -> None:
    """One trial, by what is seen: keys for the better colour, or for what a check asks."""
    visit.await_state("ready")
    asked = visit.page.inner_text("#question")
    if "please choose" in asked:
        choice = asked.rstrip(".")[-1].lower()
    else:
        a, b = visit.page.evaluate(COLOURS)
        choice = "a" if a < b else "b"
    before = visit.page.inner_text("#count")
    for _ in range(3):
        visit.await_state("ready")
        visit.page.keyboard.press(KEYS[choice])
    visit.until(
        f"document.getElementById('count').textContent !== {json.dumps(before)} "
        "|| document.body.dataset.state === 'done'"
    )


def picture(visit: Visit, name: str) -> None:
    if folder := os.environ.get("PYRF_SCREENSHOTS"):
        visit.page.screenshot(path=Path(folder, f"ab-{name}.png"), full_page=True)


def test_raters_who_see_colours(
    study: tuple[Path, list[str]], browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    votes, addresses = study
    for number, address in enumerate(addresses[:2]):
        visit = Visit(browser, address, viewport={"width": 1200, "height": 800})
        for trial in range(10):
            if trial == 4:
                visit.await_state("ready")
                assert visit.page.inner_text("#count") == "5 of 10"
                visit.page.keyboard.press("ArrowLeft")  # of a trial that is left unfinished, nothing is kept
                visit.page.reload()
                visit.await_state("ready")
                assert visit.page.inner_text("#count") == "5 of 10"
            if trial == 2 and number == 0:
                visit.await_state("ready")
                picture(visit, "desktop")
            answer(visit)
        visit.await_state("done")
        expect(visit.page.locator("#message")).to_have_text("You are done. Thank you.")
        assert visit.problems == []
        visit.close()
    assert cli.run(["eval", "ab-results", str(votes), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["left_out"] == []
    for found in told["answers"].values():
        assert [s["method"] for s in found["strengths"]] == list(TINTS)
        assert found["agreement"] == 1
        assert all(w["rate"] == 1 and w["decided"] == 2 * CLIPS for w in found["win_rates"])


def test_a_phone(study: tuple[Path, list[str]], browser: Browser) -> None:
    """Clips one above the other, all in the width, and an answer that is taken back."""
    visit = Visit(browser, study[1][2], viewport={"width": 375, "height": 740}, has_touch=True)
    visit.await_state("ready")
    boxes = [visit.page.locator(f"#{side}").bounding_box() for side in "ab"]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 375
    for button in visit.page.locator("#choices button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= 740
    expect(visit.page.locator("#back")).to_be_disabled()
    picture(visit, "phone")
    first = visit.page.inner_text("#question")
    visit.page.locator("[data-choice=same]").tap()
    assert visit.page.inner_text("#question") != first
    visit.page.locator("#back").tap()
    assert visit.page.inner_text("#question") == first
    for _ in range(3):
        visit.await_state("ready")
        visit.page.locator("[data-choice=same]").tap()
    visit.until("document.getElementById('count').textContent.startsWith('2 ')")
    visit.await_state("ready")
    visit.page.locator("#back").tap()
    visit.until("document.getElementById('count').textContent.startsWith('1 ')")
    assert visit.problems == []
    visit.close()


def test_an_invitation_that_is_not_known(study: tuple[Path, list[str]], browser: Browser) -> None:
    visit = Visit(browser, study[1][0].rsplit("/", 1)[0] + "/nobody")
    assert "ask for a new one" in visit.page.inner_text("body")
    visit.close()
