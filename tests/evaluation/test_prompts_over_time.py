"""The bundled model under blends and transitions, as its detector reads it."""

from __future__ import annotations

import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.change import Scheduled
from pyrf.worlds.shapes.detector import detect

RED = "a large red circle moves right slowly on a grey background"
BLUE = "a large blue circle moves right slowly on a grey background"


@pytest.fixture(scope="module")
def pipe() -> StreamingPipeline:
    return StreamingPipeline.from_pretrained("tiny")


def shown(frames: np.ndarray) -> tuple[str, str | None]:
    seen = detect(frames)
    return seen.color, seen.shape


def blueness(frames: np.ndarray) -> float:
    """Blue less red, where it is not the ground."""
    x = frames.astype(np.float32)
    apart = np.abs(x - np.median(x.reshape(-1, 3), axis=0)).sum(-1) > 120
    return float((x[..., 2] - x[..., 0])[apart].mean())


def test_a_small_share_keeps_the_picture_and_a_large_one_changes_it(pipe: StreamingPipeline) -> None:
    for seed in (0, 1):
        seen = []
        for share in (0.125, 0.25, 0.75, 0.875):
            frames = pipe([(RED, 1 - share), (BLUE, share)], num_frames=33, seed=seed).frames
            seen.append((*shown(frames), blueness(frames)))
        assert [(color, shape) for color, shape, _ in seen] == 2 * [("red", "circle")] + 2 * [
            ("blue", "circle")
        ]
        colors = [blue for *_, blue in seen]
        assert colors == sorted(colors)  # the more of the second prompt, the bluer


def test_a_transition_from_red_to_blue_ends_blue(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=1) as stream:
        before = [next(stream) for _ in range(4)]
        planned = stream.set_prompt(BLUE, over=2.0)
        assert planned == Scheduled(4, 45 / 16, 6, 69 / 16)
        way = [next(stream) for _ in range(2)]
        after = [next(stream) for _ in range(4)]
    assert shown(np.concatenate([chunk.frames for chunk in before])) == ("red", "circle")
    assert [chunk.progress for chunk in way] == [1 / 3, 2 / 3]
    assert shown(np.concatenate([chunk.frames for chunk in after[1:]])) == ("blue", "circle")
    red, blue = blueness(before[-1].frames), blueness(after[-1].frames)
    first = blueness(way[0].frames)
    assert red + 10 < first < blue - 100  # on the way, and neither
