"""The world as judges use it: balanced prompts, and verdicts on what they state."""

from collections import Counter

from pyrf.worlds.valley.attributes import BALLOONS, LANDS, TIMES
from pyrf.worlds.valley.world import Valley

WORLD = Valley()


def test_held_out_prompts_are_balanced_and_stay_the_same() -> None:
    prompts = WORLD.held_out(80)
    assert prompts == WORLD.held_out(80)
    assert Counter(p.attributes.time for p in prompts) == dict.fromkeys(TIMES, 20)
    assert Counter(p.attributes.land for p in prompts) == dict.fromkeys(LANDS, 20)
    assert Counter(p.attributes.balloon for p in prompts) == dict.fromkeys((*BALLOONS, None), 16)
    assert all(p.text and p.stated for p in prompts)


def test_other_seeds_give_other_prompts() -> None:
    assert WORLD.held_out(10) != WORLD.held_out(10, seed=78)


def test_attributes_of_prompts_fit_together() -> None:
    for prompt in WORLD.held_out(200):
        a = prompt.attributes
        assert (a.season is None) == (a.land in ("dunes", "sea"))
        assert (a.path is None) == (a.balloon is None)
        assert (a.speed is None) == (a.camera == "still")


def test_size_and_rate() -> None:
    assert (WORLD.name, WORLD.fps, WORLD.height, WORLD.width) == ("valley", 16, 192, 320)
