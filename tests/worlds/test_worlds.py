"""Every world keeps what its protocols promise: its trainers, judges and tests know no more of it."""

import random
from dataclasses import fields

import numpy as np
import pytest

from pyrf.evaluation.held_out import grade
from pyrf.worlds.choice import WORLDS, world_type
from pyrf.worlds.world import World, WorldPrompt, draw_scene

pytestmark = pytest.mark.long


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]()


def test_a_name_is_the_worlds_own(world: World) -> None:
    assert type(world) is world_type(world.name)
    assert type(world)(**{f.name: getattr(world, f.name) for f in fields(world)}) == world  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no world 'ocean'; there are shapes, valley"):
        world_type("ocean")


def test_scenes_are_their_seeds(world: World) -> None:
    scene, rng = draw_scene(world, 7)
    again = world.scene(7)
    assert scene.facts == again.facts
    assert (scene.render(5, 4) == again.render(0, 9)[5:]).all()
    assert scene.render(5, 4).shape == (4, world.height, world.width, 3)
    assert rng.random() != random.Random(7).random()
    subjects = [subject for seed in range(8) for subject in world.scene(seed).subjects(1000)]
    assert subjects
    for x, y, radius in subjects:  # some of a subject is in sight
        assert 2 < radius < world.height / 2
        assert -radius < x < world.width + radius
        assert -radius < y < world.height + radius


def test_captions_use_the_vocabulary(world: World) -> None:
    words, rng = set(world.vocabulary), random.Random(0)
    for seed in range(100):
        assert set(world.scene(seed).caption(rng).split()) <= words
    for prompt in world.held_out(100):
        assert set(prompt.text.split()) <= words


def test_open_speeds_are_asked_for(world: World) -> None:
    rng = random.Random(0)
    assert all(world.draw(rng, open_speed=True).speed_is_open for _ in range(20))
    assert not all(world.draw(rng).speed_is_open for _ in range(20))
    assert all(prompt.asks["speed"] is None for prompt in world.held_out(20, open_speed=True))
    assert world.held_out(20) == world.held_out(20)


def test_verdicts_are_among_the_criteria_and_true_clips_are_right(world: World) -> None:
    right = []
    for seed in range(20):
        scene = world.scene(seed)
        verdicts = world.judge(scene.render(0, 81), WorldPrompt("", scene.facts))
        assert set(scene.facts) <= set(verdicts) <= set(world.criteria)
        right += [verdicts[name] for name in scene.facts]
    assert np.mean(right) > 0.95


def test_grades_are_shares_of_those_who_ask(world: World) -> None:
    """In the order of the criteria; what no prompt asks for is left out."""
    prompts = world.held_out(6)
    videos = [world.scene(seed).render(0, 24) for seed in range(6)]
    found = grade(world, videos, prompts)
    assert list(found) == [name for name in world.criteria if name in found]
    for name, share in found.items():
        held = [v[name] for v in map(world.judge, videos, prompts) if name in v]
        assert share == pytest.approx(sum(held) / len(held))
    asked = {name for prompt in prompts[:1] for name in prompt.asks}
    assert asked <= set(grade(world, videos[:1], prompts[:1])) <= set(world.criteria)


def test_scenes_show_what_a_prompt_asks_for(world: World) -> None:
    for number, prompt in enumerate(world.held_out(100)):
        facts = world.scene_for(prompt, random.Random(number)).facts
        assert {name: facts[name] for name, value in prompt.asks.items() if value} == {
            name: value for name, value in prompt.asks.items() if value
        }
    one, other = (world.scene_for(prompt, random.Random(n)).render(0, 1) for n in (1, 2))
    assert (one != other).any()


def test_prompts_change_by_one_attribute_and_its_words(world: World) -> None:
    prompts = world.held_out(200)
    changed = set()
    for number, prompt in enumerate(prompts):
        new = world.changed(prompt, random.Random(number))
        assert new is not None
        assert new == world.changed(prompt, random.Random(number))
        (name,) = [name for name in prompt.asks if prompt.asks[name] != new.asks[name]]
        assert list(new.asks) == list(prompt.asks)
        changed.add(name)
        old_words, new_words = prompt.text.split(), new.text.split()
        assert old_words != new_words
        assert set(new_words) <= set(world.vocabulary)
        while old_words and new_words and old_words[0] == new_words[0]:
            del old_words[0], new_words[0]
        while old_words and new_words and old_words[-1] == new_words[-1]:
            del old_words[-1], new_words[-1]
        assert max(len(old_words), len(new_words)) <= 6  # one phrase; all before and behind it is the same
        assert world.scene_for(new, random.Random(0)).facts[name] == new.asks[name]
    assert changed == {name for prompt in prompts for name in prompt.asks}


def test_a_turn_changes_one_attribute_and_says_it(world: World) -> None:
    words = set(world.vocabulary)
    turned = set()
    for seed in range(40):
        turn = world.turned(seed, 480, random.Random(seed))
        assert turn is not None
        before, after = world.scene(seed).facts, turn.scene.facts
        (first, *others) = [key for key in before if before[key] != after[key]]
        assert set(others) <= {"season", "speed"}, "what goes with a land, or with a camera that stands still"
        turned.add(first)
        caption = turn.caption(random.Random(seed))
        assert caption == turn.caption(random.Random(seed))
        assert set(caption.split()) <= words
        again = world.turned(seed, 480, random.Random(seed))
        assert again is not None
        assert np.array_equal(turn.scene.render(480, 1), again.scene.render(480, 1))
    assert turned
