"""The page of the bundled model in a browser: what it shows, and what is picked."""

from __future__ import annotations

from playwright.sync_api import Locator

from pyrf.worlds.shapes.detector import detect
from tests.support.browser import Visit

RED = "a large red circle moves right slowly on a grey background"
BLUE = "a large blue square moves left slowly on a grey background"
CLIP = 16  # frames that the detector is shown


def shows(visited: Visit, color: str, shape: str) -> None:
    """Return once the detector sees this on the canvas."""
    for _ in range(20):
        seen = detect(visited.frames(CLIP))
        if (seen.color, seen.shape) == (color, shape):
            return
    raise AssertionError(f"expected a {color} {shape}, saw {seen}")


def chip(visited: Visit, phrase: str) -> Locator:
    return visited.page.locator("#choices").get_by_role("button", name=phrase, exact=True)


def picked(visited: Visit) -> list[str]:
    return visited.page.locator("#choices button[aria-pressed=true]").all_text_contents()
