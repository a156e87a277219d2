"""The motion score pays for speed of true clips, and for nothing that only changes."""

import dataclasses
import zlib

import cv2
import numpy as np
import pytest
import torch

from pyrf.evaluation.scores.calibrate_motion import calibrate, speed_open_scenes
from pyrf.evaluation.scores.motion import MotionScore, motion_terms
from pyrf.evaluation.scores.protocol import ScoreError
from pyrf.worlds.shapes.attributes import FPS, HEIGHT, WIDTH, Attributes
from pyrf.worlds.shapes.scenes import Scene
from tests.support import fake_motion
from tests.support.fake_motion import MOVING_FAKES, NUM_FRAMES, STILL_FAKES

SPEEDS = (0.1, 0.2, 0.4, 0.7, 1.0, 1.4, 1.8, 2.3)
"""Pixels a frame: the whole range of the world."""
SMALL_MARGIN = 0.1
"""Of the normalised score: a tenth of the spread among true clips."""

score = MotionScore()


def motion(*clips):
    """Normalised motion of each clip."""
    return score(torch.from_numpy(np.stack(clips)), ["a shape"] * len(clips))["motion"]


def quick_scenes(count):
    """Open-speed scenes, moving at 1.2 pixels a frame."""
    return [dataclasses.replace(scene, speed=1.2) for scene in speed_open_scenes(count, "tests")]


def rng_for(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


@pytest.mark.parametrize("scene", speed_open_scenes(10, "monotone"), ids=lambda s: s.attributes.motion)
def test_faster_true_clips_score_higher(scene) -> None:
    scores = motion(fake_motion.still(scene), *(fake_motion.moving(scene, speed) for speed in SPEEDS))
    assert (scores.diff() > 0).all(), scores


def test_magnitude_is_the_speed() -> None:
    """Heights a second, within 15 % for true clips at more than half a pixel a frame."""
    for scene in quick_scenes(10):
        terms = motion_terms(fake_motion.moving(scene))
        assert terms.magnitude == pytest.approx(1.2 * FPS / HEIGHT, rel=0.15)
        assert terms.coherence > 0.8
        assert terms.permanence > 0.8


@pytest.mark.parametrize("name", STILL_FAKES)
def test_change_without_motion_does_not_pay(name) -> None:
    """Not above a still clip, below even slow motion, and far below quick motion."""
    for scene in quick_scenes(3):
        still, fake, slow, quick = motion(
            fake_motion.still(scene),
            STILL_FAKES[name](scene, rng_for(name)),
            fake_motion.moving(scene, 0.3),
            fake_motion.moving(scene),
        )
        assert fake <= still + SMALL_MARGIN
        assert fake < slow
        assert fake < quick - 1


@pytest.mark.parametrize("name", MOVING_FAKES)
def test_what_does_not_stay_pays_less(name) -> None:
    """At least half a standard deviation less than the same motion done truly."""
    for scene in quick_scenes(3):
        fake, true = motion(MOVING_FAKES[name](scene, rng_for(name)), fake_motion.moving(scene))
        assert fake < true - 0.5


@pytest.mark.parametrize("direction", ["right", "left", "up", "down"])
def test_a_wrap_at_the_border_is_no_vanishing(direction) -> None:
    """An object that goes out at one side and comes in at the other scores as one that stays inside."""
    attributes = Attributes("yellow", "circle", "small", direction, None, "teal")
    across = WIDTH if direction in ("right", "left") else HEIGHT
    sign = 1 if direction in ("right", "down") else -1
    inside = (across / 2 - sign * 12) % across
    wrapping = (0 - sign * 12) % across
    scores = []
    for place in (inside, wrapping):
        start = (place, HEIGHT / 2) if across == WIDTH else (WIDTH / 2, place)
        scene = Scene(attributes, 10.0, 0.8, start, 0.0, (1.0, 0.0, 0.1, 1.0))
        terms = motion_terms(scene.render(0, NUM_FRAMES))
        assert terms.permanence > 0.9
        scores.append(motion(scene.render(0, NUM_FRAMES)).item())
    assert scores[1] == pytest.approx(scores[0], abs=0.35)


def test_grain_on_true_motion_costs_little() -> None:
    """A student's codec is never quite still; that must not hide the motion."""
    for scene in quick_scenes(3):
        true = fake_motion.moving(scene)
        grain = rng_for("grain").normal(0, 2, true.shape)
        noisy, clean = motion(fake_motion.clipped(true + grain), true)
        assert noisy == pytest.approx(clean.item(), abs=0.3)


def test_jerks_of_a_codec_cost_little() -> None:
    """Codecs with latent frames of four frames draw some of them twice; the motion is there all the same."""
    for scene in quick_scenes(3):
        true = fake_motion.moving(scene)
        jerky = true[[time - time % 2 for time in range(NUM_FRAMES)]]
        assert motion(jerky).item() == pytest.approx(motion(true).item(), abs=0.3)


def test_batch_does_not_matter_nor_threads_nor_repetition() -> None:
    clips = [fake_motion.moving(scene) for scene in quick_scenes(3)]
    together = motion(*clips)
    assert together.tolist() == [motion(clip).item() for clip in clips]
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        assert motion(*clips).tolist() == together.tolist()
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


def test_size_of_the_picture_does_not_matter() -> None:
    scene = quick_scenes(1)[0]
    clip = fake_motion.moving(scene)
    large = clip.repeat(3, axis=1).repeat(3, axis=2)
    assert motion(large).item() == pytest.approx(motion(clip).item(), abs=0.05)


def test_stored_statistics_are_those_of_true_clips(tmp_path) -> None:
    """The committed mean and std are what the command makes, up to the sample."""
    fresh = calibrate(tmp_path / "motion.json", count=60)
    for name, (mean, std) in score.normaliser.stats.items():
        assert fresh.stats[name][0] == pytest.approx(mean, abs=0.4 * std)
        assert fresh.stats[name][1] == pytest.approx(std, rel=0.3)


@pytest.mark.parametrize("shape", [(1, 8, 64, 96, 3), (1, 33, 16, 96, 3)])
def test_clips_too_short_or_small_are_refused(shape) -> None:
    with pytest.raises(ScoreError, match="at least"):
        score(torch.zeros(shape, dtype=torch.uint8), ["a"])
