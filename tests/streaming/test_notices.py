"""What a model has not learned is told once per prompt, and nothing is refused for it."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyrf.bundle import Card
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.notices import LISTED, LONGEST, PromptWarning, told_elsewhere

SIZE = (64, 96)


@pytest.fixture(scope="module")
def tiny() -> StreamingPipeline:
    return StreamingPipeline.from_pretrained("tiny")


def told(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message) for one in caught if one.category is PromptWarning]


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("gray", "grey"),
        ("bounce", "bounces"),
        ("fall", "falls"),
        ("falling", "falls"),
        ("squares", "square"),
        ("orange", None),
        ("pink", None),
        ("dark", None),
        ("cat", None),
        ("star", None),
        ("红色圆圈", None),
        ("🎈", None),
    ],
)
def test_the_nearest_word(tiny: StreamingPipeline, word: str, nearest: str | None) -> None:
    found = tiny.unknown_words(f"a red circle, {word.upper()}")
    assert list(found) == [word]
    if word != "star":
        assert found[word] == nearest
    assert found[word] is None or found[word] in tiny.vocabulary


def test_what_a_prompt_lacks_is_told(tiny: StreamingPipeline) -> None:
    assert tiny.model.notices("a red circle moves right") == []
    (notice,) = tiny.model.notices("a gray circle")
    assert notice.startswith("the model does not know 'gray' (near: 'grey')")
    (notice,) = tiny.model.notices("a star")
    assert notice.startswith("the model has not learned 'star'")
    (notice,) = tiny.model.notices("!!!")
    assert notice.startswith("the model reads no word of this prompt")


def test_notices_are_bounded_and_printable(tiny: StreamingPipeline) -> None:
    prompt = "x" * 200 + " a\u200bb\u202e " + " ".join(f"w{i}" for i in range(16))
    (notice,) = tiny.model.notices(prompt)
    assert len(notice) < (LONGEST + 30) * LISTED
    assert notice.isprintable()
    assert "and 10 more" in notice


def test_a_stream_tells_once_per_prompt(tiny: StreamingPipeline) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream = tiny.stream(["a pink circle", "a pink circle"], timeline={2: "a dark circle", 3: "a circle"})
        assert len(told(caught)) == 2
        stream.prompt = "an ocean"
        stream.set_prompt("an ocean", recache=True)
        stream.prompt = ["an ocean", "a cat"]
    assert [text.split("'")[1] for text in told(caught)] == ["pink", "dark", "ocean", "cat"]
    assert {one.filename for one in caught} == {__file__}


def test_a_video_tells_and_is_made(tiny: StreamingPipeline) -> None:
    with pytest.warns(PromptWarning, match="'purr'"):
        video = tiny("a red purr", 1)
    with pytest.warns(PromptWarning, match="64 x 96, not of 32 x 48"):
        small = tiny("a red circle", 1, height=32, width=48)
    assert video.frames.shape[1:] == (*SIZE, 3)
    assert small.frames.shape[1:] == (32, 48, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny("a red circle", 1, height=64, width=96)


def test_a_warning_changes_no_frame(tiny: StreamingPipeline) -> None:
    with pytest.warns(PromptWarning):
        loud = tiny("a pink circle", 1).frames
    with told_elsewhere(), warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = tiny("a pink circle", 1).frames
    assert np.array_equal(loud, silent)


def test_a_warning_that_is_an_error_changes_no_prompt(tiny: StreamingPipeline) -> None:
    stream = tiny.stream("a circle")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PromptWarning):
            stream.prompt = "a cat"
    assert stream.prompt == "a circle"


def test_without_a_card_nothing_is_told(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    assert (pipe.vocabulary, pipe.limits, pipe.card) == ((), (), Card())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.stream("anything at all 🎈", height=48, width=32)
    assert pipe.unknown_words("anything") == {}


def test_words_that_the_card_leaves_out_are_unknown(tiny: StreamingPipeline) -> None:
    """Also where the tokenizer has a token for them."""
    model = replace(tiny.model, card=Card(vocabulary=("red", "circle")))
    assert model.unknown_words("red blue circle") == {"blue": None}
