"""The moving picture of the first page: its size, its prompts, and its frames."""

import re
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrf.bundle import load_bundle

FOLDER = Path(__file__).parents[2] / "benchmarks"
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def test_fewer_colours_make_it_small_enough() -> None:
    import demo_gif

    large = demo_gif.as_gif(FRAMES, fps=8)
    small = demo_gif.as_gif(FRAMES, fps=8, max_bytes=len(large) - 1)
    assert len(small) < len(large)
    with Image.open(BytesIO(small)) as image:
        assert (image.size, image.n_frames, image.info["loop"]) == ((80, 48), 3, 0)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"3 frames take [\d,]+ bytes with 32 colours, and 100 are the most"):
        demo_gif.as_gif(FRAMES, fps=8, max_bytes=100)


def test_the_model_knows_its_words() -> None:
    import demo_gif

    words = {word for prompt in demo_gif.STORY for word in re.findall(r"\w+", prompt)}
    assert words <= set(load_bundle("valley").card.vocabulary)
    assert len(demo_gif.STORY) == 5


def test_it_writes_every_second_frame(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import demo_gif

    out = tmp_path / "demo.gif"
    monkeypatch.setattr(demo_gif, "STORY", ("a circle", "a square", "a triangle"))
    options = ["--model", str(random_bundle), "--seconds", "5"]
    monkeypatch.setattr(sys, "argv", ["demo_gif.py", str(out), *options])
    demo_gif.main()
    with Image.open(out) as image:
        assert image.n_frames == 40  # type: ignore[attr-defined]
