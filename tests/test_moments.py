"""Times as people type them: read exactly, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.moments import format_time, parse_time, split_time

LENGTHS = st.floats(0, 1e6, allow_nan=False).filter(lambda s: s == 0 or s > 1e-6)


@given(LENGTHS)
def test_what_is_written_is_read_back_exactly(seconds: float) -> None:
    text = format_time(seconds)
    assert parse_time(text) == seconds
    assert parse_time(f" {text} ") == seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_clock_counts_hours_minutes_and_seconds(h: int, m: int, s: int, ms: int) -> None:
    total = 3600 * h + 60 * m + s + ms / 1000
    assert parse_time(f"{h}:{m:02}:{s:02}.{ms:03}") == pytest.approx(total, abs=1e-9)
    assert parse_time(f"{60 * h + m}:{s:02}.{ms:03}") == parse_time(f"{h:02}:{m:02}:{s:02}.{ms:03}")


@given(LENGTHS, st.text().map(str.strip).filter(bool))
def test_any_prompt_can_be_said_behind_a_space(seconds: float, prompt: str) -> None:
    text = format_time(seconds)
    assert split_time(f"{text}: {prompt}") == (text, prompt)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("5", 5),
        ("5.", 5),
        (".5", 0.5),
        ("2.25", 2.25),
        ("90", 90),
        ("1:30", 90),
        ("00:01", 1),
        ("01:02.5", 62.5),
        ("90:00", 5400),
        ("1:02:03", 3723),
        ("0:00:00.001", 0.001),
    ],
)
def test_times_that_are_meant(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", "1:", ":30", "0:61", "1:60:00", "1:2", "1:5", "1:2:3", "1:2:3:4", "01:02:03:04"),
        *("1.5:30", "1:30.5:10", "-1", "+1", "-0:05", "nan", "inf", "1e3", "1_0", "0x10", "90s", "1m30s"),
        *("1,5", "1 30", "1: 30", "1;30", "1:30pm", "soon", "9" * 10, "0." + "1" * 31, "\n", "1\n2"),
        *("\uff11", "1:\uff130", "\u0663", "\u00b2"),  # digits of other scripts
    ],
)
def test_what_looks_mistyped_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a time is seconds, as 7\.5, or") as error:
        parse_time(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "moment", "prompt"),
    [
        ("2.5:a blue square", "2.5", "a blue square"),
        ("00:01:a blue square", "00:01", "a blue square"),
        ("1:02:03.5: a square", "1:02:03.5", "a square"),
        ("5: 10:30 on a clock", "5", "10:30 on a clock"),
        ("1:30 : 2 circles", "1:30", "2 circles"),
        ("2:a star: white", "2", "a star: white"),
        ("1:2:3:4:", "1:2:3:4", ""),
        ("5:", "5", ""),
        ("\uff15:a", "\uff15", "a"),
    ],
)
def test_the_first_colon_that_no_digit_follows_ends_the_time(text: str, moment: str, prompt: str) -> None:
    assert split_time(text) == (moment, prompt)


@pytest.mark.parametrize(
    "text", ["", "2.5", "1:30 a square", "5:2 circles", "5:10:30 on a clock", "5:.5", "5:\uff11"]
)
def test_a_time_that_no_colon_ends_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TIME:PROMPT is needed") as error:
        split_time(text)
    assert repr(text) in str(error.value)
