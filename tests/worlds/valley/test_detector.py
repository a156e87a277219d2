"""The detector reads true clips, long and short, and says how sure it is."""

import numpy as np
import pytest

from pyrf.worlds.valley.attributes import NAMES
from pyrf.worlds.valley.detector import WEIGHTS, Detection, detect
from pyrf.worlds.valley.world import Valley
from pyrf.worlds.world import WorldPrompt

WORLD = Valley()
FIRST = 2 * 10**9
CLIPS = 32


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [WORLD.scene(seed).render(300, 48) for seed in range(FIRST, FIRST + CLIPS)]


@pytest.mark.parametrize(("frames", "least"), [(48, 0.96), (12, 0.95)])
def test_true_clips_are_read(clips: list[np.ndarray], frames: int, least: float) -> None:
    right: dict[str, list[bool]] = {name: [] for name in NAMES}
    for seed, clip in zip(range(FIRST, FIRST + CLIPS), clips):
        seen, facts = detect(clip[:frames]), WORLD.scene(seed).facts
        for name in NAMES:
            right[name].append(seen.shows(name, facts))
    shares = {name: float(np.mean(held)) for name, held in right.items()}
    assert np.mean(list(shares.values())) >= least, shares
    assert min(shares.values()) >= 0.9, shares


def test_confidences_and_speed(clips: list[np.ndarray]) -> None:
    for seed, clip in zip(range(FIRST, FIRST + 6), clips):
        seen = detect(clip)
        assert set(seen.confidence) == set(NAMES)
        assert all(0 <= value <= 1.001 for value in seen.confidence.values())
        assert seen.speed == pytest.approx(16 * WORLD.scene(seed).velocity, abs=1.5)


def test_noise_is_not_taken_for_a_clip_with_certainty() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 192, 320, 3), dtype=np.uint8)
    assert detect(noise).confidence["camera"] < 0.5


def test_a_verdict_is_given_on_what_is_asked(clips: list[np.ndarray]) -> None:
    facts = WORLD.scene(FIRST).facts
    verdicts = WORLD.judge(clips[0], WorldPrompt("", {"time": facts["time"], "speed": None}))
    assert verdicts == {"time": True, "speed": True}
    assert set(WORLD.judge(clips[0], WorldPrompt("", facts))) <= set(WORLD.criteria)


def test_an_empty_sky_can_be_asked_for() -> None:
    seen = Detection("noon", "sea", None, "clear", None, None, "left", -50.0, {}, 0.0)
    assert seen.shows("balloon", {"balloon": "none"})
    assert not seen.shows("balloon", {"balloon": "red"})
    assert seen.shows("path", {"path": None})
    assert seen.shows("speed", {"speed": "fast"})
    assert not seen.shows("speed", {"speed": "slow"})


def test_wrong_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="frames must be uint8"):
        detect(np.zeros((12, 64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match="at least 2 frames"):
        detect(np.zeros((1, 192, 320, 3), np.uint8))


def test_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
