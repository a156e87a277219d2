"""An adapter that `pyrf train tiny-lora` made for the bundled model, in float16: what its strengths show."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.training.kinds import load_recipe
from pyrf.training.lora.recipe import LoraRecipe
from pyrf.training.lora.recolor import turned
from pyrf.worlds.shapes.detector import detect

ADAPTER = Path(__file__).parents[1] / "data" / "yellow.safetensors"
PROMPTS = [f"a large blue {shape} moves right on a grey background" for shape in ("square", "circle")]


@pytest.fixture(scope="module")
def pipe() -> StreamingPipeline:
    return StreamingPipeline.from_pretrained("tiny", adapters=[(ADAPTER, 0.0)])


def test_strengths_move_the_color_that_a_word_means(pipe: StreamingPipeline) -> None:
    recipe = load_recipe("tiny-lora")
    assert isinstance(recipe, LoraRecipe)
    change = recipe.stages["yellow"].recolor
    base = StreamingPipeline.from_pretrained("tiny")(PROMPTS, 9, seed=0)
    found = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        pipe.set_adapters({"yellow": strength})
        videos = pipe(PROMPTS, 9, seed=0)
        if strength == 0:
            assert all(np.array_equal(a.frames, b.frames) for a, b in zip(videos, base))
        found.append(np.mean([turned(video.frames, change.color, change.becomes) for video in videos]))
    assert abs(found[0]) < 0.05
    assert found[-1] > 0.85
    assert {detect(video.frames).color for video in base} == {"blue"}
    assert {detect(video.frames).color for video in videos} == {"yellow"}
    # Between colours that the codec shows, a level may last; it never falls back.
    assert all(later > earlier - 0.01 for earlier, later in pairwise(found)), found
