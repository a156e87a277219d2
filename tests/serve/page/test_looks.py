"""The page on a phone, in both colour schemes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")


from tests.support.browser import Visit, find_chromium
from tests.support.shapes_page import RED

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_reads_well(port: int, visit: Callable[..., Visit], scheme: str) -> None:
    v = visit(port, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    v.start(RED)
    v.picture(f"phone-{scheme}")
    assert v.page.evaluate("document.documentElement.scrollWidth") == 360
    for control in v.page.locator("button, input, textarea, select").all():
        if box := control.bounding_box():
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            assert min(box["width"], box["height"]) >= 24
    places = ["h1", "#served", "#prompt", "#send", "#pause", "dt", "dd", "footer p", "#gallery button"]
    places += ["#gallery small", ".group span", ".group button", ".group button[aria-pressed=true]"]
    for place in places:
        assert contrast(v, place) >= 4.5, place
    is_dark = luminance(v, "body", "backgroundColor") < 0.5
    assert is_dark == (scheme == "dark")


def contrast(visited: Visit, selector: str) -> float:
    """Of an element's text with what lies behind it (WCAG 2.2, 1.4.3)."""
    text = luminance(visited, selector, "color")
    ground = luminance(visited, selector, "backgroundColor")
    return (max(text, ground) + 0.05) / (min(text, ground) + 0.05)


def luminance(visited: Visit, selector: str, role: str) -> float:
    """Relative luminance of a colour of an element, or of what it stands on where it has none."""
    seen = visited.page.locator(selector).first.evaluate(
        """(element, role) => {
          for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e)[role];
            if (color !== "rgba(0, 0, 0, 0)") return color;
          }
        }""",
        role,
    )
    rgb = np.array([int(part) for part in re.findall(r"\d+", seen)[:3]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
