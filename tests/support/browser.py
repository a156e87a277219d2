"""A real Chromium on the page of a real server, and what a test asks of them."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect, sync_playwright

TIMEOUT_S = 300

expect.set_options(timeout=1000 * TIMEOUT_S)  # of itself it waits for 5 s, which a loaded machine may need

# Chromium draws no frame that nothing asks for; the page's own loop keeps it drawing.
_UNTIL = """([milliseconds]) => new Promise((done, fail) => {
  const timer = setTimeout(() => fail(new Error(document.body.innerText)), milliseconds);
  const step = () => (%s) ? done(clearTimeout(timer)) : requestAnimationFrame(step);
  step();
})"""
_COLLECT = """(count) => new Promise((done) => {
  const canvas = document.getElementById("canvas");
  const frames = [];
  let last = null;
  const step = () => {
    if (canvas.dataset.frame !== last) {
      last = canvas.dataset.frame;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      frames.push(btoa(String.fromCharCode(...data)));
    }
    if (frames.length < count) requestAnimationFrame(step);
    else done({ width: canvas.width, height: canvas.height, frames });
  };
  step();
})"""
_REDRAWS = """(count) => new Promise((done) => {
  const step = () => (count-- ? requestAnimationFrame(step) : done());
  step();
})"""


def find_chromium() -> str | None:
    """The browser's path."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """A browser without a window, with options of its command line."""
    # The sandbox needs what containers do not give, or is refused to root.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", *options]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        browser.close()


class Visit:
    """A browser's page on a server.

    Attributes:
        page: playwright's page.
        problems: uncaught exceptions and what the page's own policy forbade.
        requested: URLs that were asked for.
    """

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 900, "height": 1080}, **context})
        self._context.set_default_timeout(1000 * TIMEOUT_S)
        self.page: Page = self._context.new_page()
        self.problems: list[str] = []
        self.requested: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(url)

    def _hear(self, message: Any) -> None:
        if "Content Security Policy" in message.text:
            self.problems.append(message.text)

    def close(self) -> None:
        self._context.close()

    def await_state(self, *states: str) -> None:
        """Return once the page is in one of the states."""
        self.until(f"{list(states)}.includes(document.body.dataset.state)")

    def until(self, condition: str) -> None:
        """Return once a JavaScript expression holds. The page's policy forbids playwright's own way."""
        self.page.evaluate(_UNTIL % condition, [1000 * TIMEOUT_S])

    def start(self, prompt: str) -> None:
        """Type a prompt, send it, and see the stream begin."""
        self.send(prompt)
        self.await_state("live")

    def send(self, prompt: str) -> None:
        expect(self.page.locator("#send")).to_be_enabled()
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")

    def frames(self, count: int) -> NDArray[np.uint8]:
        """The next different pictures of the canvas, [T, H, W, 3]."""
        taken = self.page.evaluate(_COLLECT, count)
        pixels = np.frombuffer(b"".join(map(base64.b64decode, taken["frames"])), np.uint8)
        return pixels.reshape(count, taken["height"], taken["width"], 4)[..., :3]

    def redraws(self, count: int) -> None:
        """Let the page redraw itself."""
        self.page.evaluate(_REDRAWS, count)

    @property
    def frame(self) -> int:
        """Index of the frame that is seen."""
        return int(self.page.get_attribute("#canvas", "data-frame") or -1)

    @property
    def session(self) -> dict[str, str]:
        """Id and token of the page's session."""
        return json.loads(self.page.evaluate("sessionStorage.getItem('pyrf-session')") or "{}")

    def picture(self, name: str) -> None:
        """Save a screenshot, if PYRF_SCREENSHOTS says where."""
        if folder := os.environ.get("PYRF_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder, f"serve-{name}.png"), full_page=True)
