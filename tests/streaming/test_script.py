"""Stories: what they may say, what is refused with its line, and that no file costs much."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.moments import format_time
from pyrf.streaming.change import Change
from pyrf.streaming.script import MAX_BYTES, MAX_ENTRIES, Script, ScriptError

STORY = """\
seed: 6
seconds: 1:30
story:
  - prompt: a red circle
    adapters: {style: 0}
  - at: 4
    prompt: a blue circle
    over: 2
  - at: 0:08
    prompt:
      a blue circle: 3
      "a yellow star: spins": 1
    over: 0:01.5
    recache: true
  - at: 1:08.5
    adapters: {style: 0.3, grain: -.5}
"""


def test_a_story_is_read_as_it_stands() -> None:
    """Times above all: YAML itself would read 1:08.5 as 68.5, 0:08 as a text and 1:30 as 90."""
    script = Script.parse(STORY)
    assert (script.prompt, script.seed, script.seconds) == ("a red circle", 6, 90.0)
    assert script.adapters == {"style": 0.0}
    mix = (("a blue circle", 0.75), ("a yellow star: spins", 0.25))
    assert script.timeline == {
        "0:00": Change(adapters={"style": 0.0}),
        "0:04": Change("a blue circle", 2.0),
        "0:08": Change(mix, 1.5, True),
        "1:08.5": Change(adapters={"style": 0.3, "grain": -0.5}),
    }
    assert [switch.said for switch in script.switches] == [
        "story, line 6 (at 0:04)",
        "story, line 9 (at 0:08)",
        "story, line 15 (at 1:08.5)",
    ]


def test_json_is_a_story_too() -> None:
    text = '{"story": [{"prompt": "a"}, {"at": "0:02", "prompt": {"a": 0.5, "b": 0.5}, "recache": false}]}'
    assert Script.parse(text).timeline == {"0:02": Change((("a", 0.5), ("b", 0.5)))}


@given(st.lists(st.integers(1, 10**8), min_size=1, max_size=20, unique=True))
def test_every_time_that_is_written_is_read_back(milliseconds: list[int]) -> None:
    times = [format_time(value / 1000) for value in sorted(milliseconds)]
    text = "story:\n- prompt: a\n" + "".join(f"- at: {time}\n  prompt: b\n" for time in times)
    assert list(Script.parse(text).timeline) == times


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "it is empty"),
        ("# nothing", None, "it is empty"),
        ("a red circle", 1, "a story must be a mapping with seed, seconds, story"),
        ("seed: 1", 1, "a story needs a list 'story'"),
        ("\nstory: []", 2, "story must be a list of prompts, and not empty"),
        ("story: a red circle", 1, "story must be a list"),
        ("story:\n- a red circle", 2, "an entry must be a mapping with at, prompt"),
        ("story:\n- at: 0\n  over: 1", 2, "the first entry needs a prompt"),
        ("story:\n- at: 1\n  prompt: a", 2, "the first entry begins the video"),
        ("story:\n- prompt: a\n  over: 1", 2, "nothing to change from; leave 'over' out"),
        ("story:\n- prompt: a\n- prompt: b", 3, "an entry needs 'at'"),
        ("story:\n- prompt: a\n- at: 5\n  prompt: b\n- at: 0:05\n  prompt: c", 5, "does not come after"),
        ("story:\n- prompt: a\n- at: 0\n  prompt: b", 3, "the entry at 0:00 does not come after"),
        ("story:\n- prompt: a\n- at: 5\n  prompt:\n    b: 1\n    c: -1", 5, "the weight of 'c'"),
        ("story:\n- prompt: a\n- at: 5\n  prompt: {b: .nan}", 4, "'b' needs a number, got '.nan'"),
        ("story:\n- prompt: a\n- at: 5\n  prompt: {b: 0}", 4, "all weights of a weighted prompt are 0"),
        ("story:\n- prompt: {a: 1, a: 2}", 2, "'a' stands twice"),
        ("story:\n- prompt: 5", 2, "a prompt must be a text, got '5'; put it in quotes"),
        ("story:\n- prompt: yes", 2, "a prompt must be a text, got 'yes'"),
        ("story:\n- prompt:", 2, "a prompt must be a text"),
        ("story:\n- prompt: ' '", 2, "the prompt is empty"),
        ("story:\n- prompt: a\n- at: 1:5\n  prompt: b", 3, "at: a time is seconds, as 7.5, or"),
        ("story:\n- prompt: a\n- at: [1]\n  prompt: b", 3, "at must be a single value"),
        ("story:\n- prompt: a\n- at: 2\n  prompt: b\n  over: 4000", 3, "over must be a number of seconds"),
        ("story:\n- prompt: a\n- at: 2\n  prompt: b\n  recache: on", 5, "recache must be true or false"),
        (
            "story:\n- prompt: a\n- at: 2\n  promt: b",
            4,
            "unknown name 'promt' in an entry; did you mean 'prompt'?",
        ),
        ("story:\n- prompt: a\n- at: 2", 3, "nothing changes; give a prompt"),
        ("story:\n- prompt: a\n- at: 2\n  over: 1\n  adapters: {b: 1}", 3, "over and recache belong to"),
        ("story:\n- prompt: a\n  adapters: {b: 1e99}", 3, "the strength of adapter 'b'"),
        ("sead: 1\nstory: []", 1, "unknown name 'sead' in a story; did you mean 'seed'?"),
        ("seed: -1\nstory:\n- prompt: a", 1, "seed must be a whole number of 0.."),
        ("seed: 1e3\nstory:\n- prompt: a", 1, "seed must be a whole number"),
        ("seed: 1\nseed: 2\nstory:\n- prompt: a", 2, "'seed' stands twice in a story"),
        ("seconds: 0\nstory:\n- prompt: a", 1, "seconds must be above 0"),
        ("story:\n- prompt: [a\n", 3, "expected ',' or ']'"),
        ("story:\n\t- prompt: a", 2, "found character '\\t'"),
        ("a: 1\n---\nb: 2", 2, "but found another document"),
        ("story: !!python/object:os.system a", 1, "story must be a list"),
        ("? [a]\n: 1", 1, "a name in a story must be a text"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int | None, message: str) -> None:
    with pytest.raises(ScriptError) as raised:
        Script.parse(text, "s.yaml")
    assert str(raised.value).startswith("s.yaml: " if line is None else f"s.yaml, line {line}: ")
    assert message in str(raised.value)


def test_aliases_and_depth_are_refused_before_they_are_built() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    with pytest.raises(ScriptError, match="line 1: a story has no anchors and aliases"):
        Script.parse(bomb)
    with pytest.raises(ScriptError, match="line 1: lists within lists deeper than"):
        Script.parse("[" * 100_000)
    with pytest.raises(ScriptError, match="line 6: lists within lists"):
        Script.parse("a:\n b:\n  c:\n   d:\n    e:\n     f: 1")


def test_a_story_has_a_size(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("story:\n- prompt: a\n#" + "x" * MAX_BYTES)
    with pytest.raises(ScriptError, match="a story may have 262,144 bytes"):
        Script.load(path)
    entries = "".join(f"- at: {i}\n  prompt: b\n" for i in range(1, MAX_ENTRIES + 1))
    with pytest.raises(ScriptError, match=f"line 2001: a story may have {MAX_ENTRIES} entries"):
        Script.parse("story:\n- prompt: a\n" + entries)


def test_a_file_is_read_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbfstory:\n- prompt: a caf\xc3\xa9\n")
    assert Script.load(path).prompt == "a café"
    path.write_bytes(b"story:\n- prompt: a caf\xe9\n")
    with pytest.raises(ScriptError, match=r"s.yaml, line 2: not UTF-8"):
        Script.load(path)
    with pytest.raises(FileNotFoundError):
        Script.load(tmp_path / "none.yaml")


@given(st.text(max_size=200))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    with suppress(ScriptError):
        Script.parse(text)
