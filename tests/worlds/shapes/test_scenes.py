"""The shapes world: deterministic, endless, and readable by its detector."""

import random

import numpy as np
import pytest

from pyrf.worlds.shapes.attributes import HEIGHT, MOTIONS, SHAPES, WIDTH
from pyrf.worlds.shapes.captions import caption, vocabulary
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.world import ShapesWorld

EASY = ShapesWorld()
WHOLE = ShapesWorld(shapes=SHAPES, motions=MOTIONS)


@pytest.mark.parametrize("world", [EASY, WHOLE], ids=["easy", "whole"])
def test_detector_reads_true_clips(world: ShapesWorld) -> None:
    """At least 98 % right on colour, shape, motion and speed of true 5-second clips."""
    right = []
    for seed in range(300):
        scene = world.scene(seed)
        seen = detect(scene.render(0, 81))
        right.append([seen.shows(name, scene.facts) for name in ("color", "shape", "motion", "speed")])
    share = np.mean(right, axis=0)
    assert (share >= 0.98).all(), dict(zip(("color", "shape", "motion", "speed"), share))


def test_detector_sees_a_wrong_clip() -> None:
    """A frozen clip is still, an empty one holds no object, noise fits no shape well."""
    scene = next(s for s in (EASY.scene(i) for i in range(100)) if s.attributes.speed == "fast")
    clip = scene.render(0, 81)
    assert detect(np.repeat(clip[:1], 81, axis=0)).motion == "still"
    empty = np.full_like(clip, 20)
    assert detect(empty).shape is None
    noise = np.random.default_rng(0).integers(0, 256, clip.shape, dtype=np.uint8)
    assert detect(noise).fit < 0.6


def test_any_stretch_is_the_same_video() -> None:
    for seed in range(20):
        scene = WHOLE.scene(seed)
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
        ShapesWorld(shapes=("hexagon",))
