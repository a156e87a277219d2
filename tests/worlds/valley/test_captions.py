"""Captions say what they are meant to say, in words that the vocabulary lists."""

import random

from pyrf.training.scratch.text import word_tokenizer
from pyrf.worlds.valley.attributes import NAMES
from pyrf.worlds.valley.captions import compose, draw_stated, sayable
from pyrf.worlds.valley.phrases import (
    AFTER,
    BEFORE,
    TABLES,
    normalize,
    vocabulary,
    words_by_attribute,
)
from pyrf.worlds.valley.world import Valley

WORLD = Valley()


def test_every_word_of_many_captions_is_in_the_vocabulary() -> None:
    known = set(vocabulary())
    for seed in range(1500):
        text = WORLD.scene(seed).caption(random.Random(seed))
        assert set(normalize(text).split()) <= known, text


def test_there_are_hundreds_of_words() -> None:
    assert len(vocabulary()) > 250
    assert vocabulary() == sorted(set(vocabulary())) == WORLD.vocabulary


def test_a_word_tokenizer_reads_captions_without_unknown_words() -> None:
    tokenizer = word_tokenizer(vocabulary())
    unknown = tokenizer.token_to_id("<unk>")
    longest = 0
    for seed in range(300):
        text = WORLD.scene(seed).caption(random.Random(seed))
        ids = tokenizer.encode(text).ids
        assert unknown not in ids, text
        longest = max(longest, len(ids))
    assert longest <= 48


def test_normalizing_drops_punctuation_and_case() -> None:
    assert normalize("A hot-air  Balloon; it's DUSK!") == "a hot air balloon its dusk"


def test_values_of_an_attribute_share_no_phrase() -> None:
    for name, values in words_by_attribute().items():
        if name == "filler":
            continue
        seen: dict[str, str] = {}
        for value, phrases in values.items():
            for phrase in phrases:
                assert seen.setdefault(phrase, value) == value, (name, phrase)


def test_what_is_stated_is_said_and_the_rest_is_not() -> None:
    for seed in range(400):
        attributes, rng = WORLD.scene(seed).attributes, random.Random(seed)
        stated = draw_stated(attributes, rng, named=0.5)
        assert stated <= set(sayable(attributes)) <= set(NAMES)
        text = normalize(compose(attributes, stated, rng))
        assert text
        for name in ("time", "weather", "camera", "balloon"):
            said = any(
                f" {normalize(phrase)} " in f" {text} "
                for table in TABLES[name]
                for phrases in table.values()
                for phrase in phrases
            )
            if name in stated:
                assert said, (name, text)


def test_a_speed_is_never_said_without_the_camera() -> None:
    for seed in range(300):
        stated = draw_stated(WORLD.scene(seed).attributes, random.Random(seed), named=0.5)
        assert "speed" not in stated or "camera" in stated


def test_fillers_name_no_attribute() -> None:
    words = {word for phrase in (*BEFORE, *AFTER) for word in normalize(phrase).split()}
    meant = {
        word
        for name, values in words_by_attribute().items()
        if name in ("balloon", "path", "speed", "season")
        for phrases in values.values()
        for phrase in phrases
        for word in normalize(phrase).split()
    }
    assert words & meant <= {"a", "an", "with", "of", "in", "at", "high"}


def test_an_open_speed_is_not_said() -> None:
    for seed in range(200):
        attributes = WORLD.scene(seed).attributes
        if attributes.speed_is_open:
            assert "speed" not in sayable(attributes)
