"""An adapter that `pyrf train tiny-lora` made for the bundled model, in float16: what its strengths show."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.training.lora.twin import twin_seen
from pyrf.worlds.shapes.detector import detect

ADAPTER = Path(__file__).parents[1] / "data" / "twin.safetensors"
PROMPTS = [
    "a large red square moves right slowly on a grey background",
    "a large white circle falls on a black background",
]


@pytest.fixture(scope="module")
def pipe() -> StreamingPipeline:
    return StreamingPipeline.from_pretrained("tiny", adapters=[(ADAPTER, 0.0)])


def test_strengths_bring_a_second_shape(pipe: StreamingPipeline) -> None:
    base = StreamingPipeline.from_pretrained("tiny")(PROMPTS, 21, seed=0)
    found = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        pipe.set_adapters({"twin": strength})
        videos = pipe(PROMPTS, 21, seed=0)
        if strength == 0:
            assert all(np.array_equal(a.frames, b.frames) for a, b in zip(videos, base))
        found.append(np.mean([twin_seen(video.frames[9:]) for video in videos]))
    assert found[0] == 0  # the base never draws two
    assert found[-1] > 0.8
    assert all(later >= earlier - 0.01 for earlier, later in pairwise(found)), found
    assert [detect(video.frames).color for video in videos] == ["red", "white"]
