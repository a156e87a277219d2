"""The shapes world: deterministic, endless, and readable by its detector."""

import random

import numpy as np
import pytest

from pyrf.worlds.shapes.captions import caption, vocabulary
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.scenes import HEIGHT, MOTIONS, SHAPES, WIDTH, Scene, World

EASY = World()
WHOLE = World(shapes=SHAPES, motions=MOTIONS)


def draw(world: World, seed: int) -> Scene:
    rng = random.Random(seed)
    return Scene.sample(world.sample(rng), rng)


@pytest.mark.parametrize("world", [EASY, WHOLE], ids=["easy", "whole"])
def test_detector_reads_true_clips(world: World) -> None:
    """At least 98 % right on colour, shape, motion and speed of true 5-second clips."""
    right = []
    for seed in range(300):
        scene = draw(world, seed)
        matches = detect(scene.render(0, 81)).matches(scene.attributes)
        right.append([matches[name] for name in ("color", "shape", "motion", "speed")])
    share = np.mean(right, axis=0)
    assert (share >= 0.98).all(), dict(zip(("color", "shape", "motion", "speed"), share))


def test_detector_sees_a_wrong_clip() -> None:
    """A frozen clip is still, an empty one holds no object, noise fits no shape well."""
    scene = next(s for s in (draw(EASY, i) for i in range(100)) if s.attributes.speed == "fast")
    clip = scene.render(0, 81)
    assert detect(np.repeat(clip[:1], 81, axis=0)).motion == "still"
    empty = np.full_like(clip, 20)
    assert detect(empty).shape is None
    noise = np.random.default_rng(0).integers(0, 256, clip.shape, dtype=np.uint8)
    assert detect(noise).fit < 0.6


def test_any_stretch_is_the_same_video() -> None:
    for seed in range(20):
        scene = draw(WHOLE, seed)
        assert (scene.render(0, 60)[37:] == scene.render(37, 23)).all()
        assert scene.render(100_000, 2).shape == (2, HEIGHT, WIDTH, 3)


def test_captions_use_only_the_vocabulary_and_vary() -> None:
    words = set(vocabulary())
    seen = set()
    for seed in range(2000):
        rng = random.Random(seed)
        text = caption(WHOLE.sample(rng), rng)
        assert set(text.split()) <= words, text
        seen.add(text)
    assert len(seen) > 1500


def test_world_refuses_unknown_names() -> None:
    with pytest.raises(ValueError, match="no shape \\['hexagon'\\]; known: circle"):
        World(shapes=("hexagon",))
