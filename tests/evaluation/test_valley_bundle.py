"""The valley's bundle as far as its training has come: it loads, and shows what it has learned so far."""

from pathlib import Path

import pytest

import pyrf
from pyrf.evaluation.held_out import evaluate
from pyrf.worlds.choice import WORLDS

pytestmark = pytest.mark.long

ASSETS = Path(pyrf.__file__).parent / "assets"
MAX_BYTES = 60 * 10**6
"""Of all bundles of the wheel together."""


def test_the_bundles_fit_the_wheel_and_have_cards() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= MAX_BYTES
    for bundle in ASSETS.iterdir():
        card = (bundle / "README.md").read_text()
        assert all(word in card for word in ("Data", "Recipe", "Scores", "minutes"))


def test_it_shows_the_hour_and_the_land(tmp_path: Path) -> None:
    scores, _ = evaluate("valley", WORLDS["valley"](), 8, 5.0, tmp_path / "sheet.png")
    assert scores["time"] >= 0.8, scores
    assert scores["land"] >= 0.7, scores
