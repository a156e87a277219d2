"""The world as judges use it: balanced prompts, and what they ask for."""

from collections import Counter

from pyrf.worlds.valley.attributes import BALLOONS, LANDS, NAMES, SEASONS, TIMES
from pyrf.worlds.valley.phrases import normalize
from pyrf.worlds.valley.world import Valley

WORLD = Valley()


def test_held_out_prompts_are_balanced_and_stay_the_same() -> None:
    prompts = WORLD.held_out(400)
    assert prompts == WORLD.held_out(400)
    for name, values, fewest in (
        ("time", TIMES, 80),
        ("land", LANDS, 80),
        ("balloon", (*BALLOONS, "none"), 60),
    ):
        found = Counter(prompt.asks[name] for prompt in prompts if name in prompt.asks)
        assert set(found) == set(values)
        assert min(found.values()) >= fewest


def test_prompts_have_words_and_ask_for_something() -> None:
    for prompt in WORLD.held_out(100):
        assert prompt.text == normalize(prompt.text) != ""
        assert prompt.asks
        assert set(prompt.asks) <= set(NAMES)
        assert None not in prompt.asks.values()


def test_what_prompts_ask_for_fits_together() -> None:
    for prompt in WORLD.held_out(300):
        asks = prompt.asks
        if asks.get("land") in ("dunes", "sea"):
            assert "season" not in asks
        if asks.get("balloon") == "none":
            assert "path" not in asks
        if asks.get("camera") == "still":
            assert "speed" not in asks
        assert asks.get("season") in (None, *SEASONS)


def test_facts_name_every_attribute() -> None:
    for seed in range(50):
        scene = WORLD.scene(seed)
        assert tuple(scene.facts) == NAMES
        assert (scene.facts["balloon"] == "none") == (scene.flight is None)
