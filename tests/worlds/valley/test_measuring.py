"""What is measured of streams of the valley, and what counts as a broken clip."""

import random

import numpy as np
import pytest

from pyrf.worlds.valley.measuring import is_broken, measure
from pyrf.worlds.valley.scene import Scene
from pyrf.worlds.valley.world import Valley
from pyrf.worlds.world import Frames, MeasuredWorld, WorldPrompt

pytestmark = pytest.mark.long

WORLD = Valley()
FRAMES = 33


def scene(seed: int, **values: str) -> Scene:
    """A scene in clear weather that shows these attributes."""
    return WORLD.scene_for(WorldPrompt("", {"weather": "clear", **values}), random.Random(seed))


@pytest.fixture(scope="module")
def slow() -> Frames:
    return scene(1, land="hills", time="noon", camera="right", speed="slow").render(0, 2 * 32)


@pytest.fixture(scope="module")
def fast() -> Frames:
    return scene(2, land="hills", time="noon", camera="left", speed="fast").render(0, 2 * 32)


@pytest.fixture(scope="module")
def elsewhere() -> Frames:
    return scene(3, land="dunes", time="night", camera="right").render(0, 32)


def test_a_world_that_measures() -> None:
    assert isinstance(WORLD, MeasuredWorld)
    assert set(WORLD.followed) <= set(WORLD.criteria)


def test_columns_of_true_streams(slow: Frames, fast: Frames) -> None:
    """Speeds are the camera's, whichever way it goes."""
    assert 0.5 * 16 < measure(slow)["dynamic"] < 1.2 * 16
    assert 2.5 * 16 < measure(fast)["dynamic"] < 3.9 * 16
    for stream in (slow, fast):
        assert measure(stream)["drift"] < 1
        assert measure(stream)["permanence"] == 1


def test_a_stream_that_comes_elsewhere_is_not_permanent(slow: Frames, elsewhere: Frames) -> None:
    columns = measure(np.concatenate([slow, elsewhere, slow[:32]]))
    assert columns["permanence"] == 3 / 4


def test_a_stream_that_dissolves_drifts(slow: Frames) -> None:
    noise = np.random.default_rng(0).integers(0, 256, slow[:32].shape, np.uint8)
    columns = measure(np.concatenate([slow[:32], noise]))
    assert columns["drift"] > 5
    assert columns["permanence"] == 1 / 2


def test_true_clips_are_not_broken(slow: Frames, fast: Frames, elsewhere: Frames) -> None:
    """Still ones neither."""
    still = slow[:1].repeat(FRAMES, axis=0)
    assert not any(is_broken(clip[:FRAMES]) for clip in (slow, fast, elsewhere, still))


def test_what_shows_no_valley_or_does_not_go_on_is_broken(slow: Frames, elsewhere: Frames) -> None:
    rng = np.random.default_rng(0)
    clip = slow[:32]
    grainy = np.clip(clip + rng.normal(0, 60, clip.shape), 0, 255).astype(np.uint8)
    share = np.linspace(0, 1, 32)[:, None, None, None]
    broken = {
        "noise": rng.integers(0, 256, clip.shape, np.uint8),
        "flat": np.full_like(clip, 90),
        "grain": grainy,
        "cut": np.concatenate([clip[:16], elsewhere[16:]]),
        "fade": (clip * (1 - share) + elsewhere * share).astype(np.uint8),
    }
    assert [name for name, frames in broken.items() if not is_broken(frames)] == []
