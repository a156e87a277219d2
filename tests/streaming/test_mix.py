"""Prompts with weights: what is one, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.config import MAX_TEXTS
from pyrf.streaming.mix import as_json, as_mix, is_one, told
from pyrf.streaming.prompts import as_prompts

WEIGHTS = st.dictionaries(st.text(min_size=1, max_size=9), st.floats(0, 1e9), min_size=1, max_size=MAX_TEXTS)


@given(WEIGHTS.filter(lambda weights: max(weights.values()) > 0))
def test_weights_have_a_sum_of_one_and_keep_their_ratios(weights: dict[str, float]) -> None:
    mix = as_mix(weights)
    assert mix == as_mix(list(weights.items()))
    pairs = [(mix, 1.0)] if isinstance(mix, str) else mix
    assert math.isclose(math.fsum(weight for _, weight in pairs), 1, rel_tol=1e-9)
    total = math.fsum(weights.values())
    assert [text for text, _ in pairs] == [text for text, w in weights.items() if w / total > 0]
    for text, weight in pairs:
        assert math.isclose(weight, weights[text] / total, rel_tol=1e-9)
    assert as_mix(as_json(mix)) == mix or not isinstance(mix, str)


def test_a_text_of_weight_0_is_left_out() -> None:
    assert as_mix([("a", 1), ("b", 0)]) == "a"
    assert as_mix({"a": 0, "b": 2.0, "c": 2}) == (("b", 0.5), ("c", 0.5))
    assert told((("b", 0.5), ("c", 0.5))) == "50 % b + 50 % c"


def test_one_prompt_and_a_list_of_them_are_told_apart() -> None:
    pairs: Any = [("a", 0.75), ("b", 0.25)]
    mix = (("a", 0.75), ("b", 0.25))
    assert (
        as_prompts(pairs) == (mix,) == as_prompts(dict(pairs)) == as_prompts([list(pair) for pair in pairs])
    )
    assert as_prompts([pairs, "c"]) == (mix, "c")
    assert as_prompts(["a", "b"]) == ("a", "b")
    assert is_one(pairs)
    assert not is_one([pairs])
    assert not is_one([])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([("a", -0.1), ("b", 1)], r"the weight of 'a' must be a number from 0 to 1e9, got -0.1"),
        ([("a", math.nan)], "the weight of 'a' .* got nan"),
        ([("a", math.inf)], "the weight of 'a' .* got inf"),
        ([("a", True)], "the weight of 'a' .* got True"),
        ([("a", None)], "the weight of 'a' .* got None"),
        ([("a", 0), ("b", 0.0)], "all weights of a weighted prompt are 0"),
        ([("a", 1), ("a", 2)], "'a' stands twice"),
        ([(str(i), 1) for i in range(MAX_TEXTS + 1)], f"1 to {MAX_TEXTS} texts, got {MAX_TEXTS + 1}"),
        ({}, "1 to 8 texts, got 0"),
        ({1: 1.0}, "must be a string, got int"),
        (["a", ("b", 0.5)], "got tuple"),
        ([3], "a prompt must be a string"),
        (3, "prompt must be a string, .* got int"),
        ([], "the list of prompts is empty"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_prompts(prompt)
