"""Worlds draw and judge the same whatever the program around them has set."""

import random

import numpy as np
import pytest

from pyrf.worlds.choice import WORLDS
from pyrf.worlds.world import Facts, Frames, World
from tests.support.host_states import STATES

SEED = 5


def drawn_and_judged(world: World) -> tuple[Frames, Facts, dict[str, bool]]:
    frames = world.scene(SEED).render(7, 12)
    prompt = world.held_out(1)[0]
    return frames, world.scene(SEED).facts, world.judge(frames, prompt)


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_are_the_same(name: str) -> None:
    frames, facts, verdicts = drawn_and_judged(WORLDS[name]())
    for state in STATES:
        random.seed(state)
        with STATES[state]():
            found = drawn_and_judged(WORLDS[name]())
        assert np.array_equal(found[0], frames), state
        assert found[1:] == (facts, verdicts), state
