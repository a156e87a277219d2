"""`pyrf script check`, and `pyrf generate` with stories and transitions."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.change import Change

STORY = """\
seed: 3
seconds: 2.8125
story:
  - prompt: a red circle
  - at: 0.5
    prompt: a blue square
    over: 1
  - at: 0:02
    prompt: {a blue square: 1, a red star: 3}
    recache: true
"""


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.yaml"
    path.write_text(STORY)
    return path


def test_check_prints_the_timetable(
    story: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chunks begin at frames 0, 9, 21, 33 of 16 a second; a second is two chunks."""
    assert cli.run(["script", "check", str(story), "--model", str(random_bundle)]) == 0
    assert [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[:-1]] == [
        ["chunk", "time", "what"],
        ["0", "0:00", "a red circle"],
        ["1", "0:00.562", "a blue square (whole from chunk 2 on, at 0:01.312)"],
        ["3", "0:02.062", "25 % a blue square + 75 % a red star, recached"],
    ]
    assert cli.run(["script", "check", str(story), "--model", str(random_bundle), "--seconds", "2"]) == 2
    assert "story.yaml, line 8 (at 0:02) lies outside the video" in capsys.readouterr().err


def test_generate_shows_a_story(story: Path, tmp_path: Path, random_bundle: Path) -> None:
    out = tmp_path / "out"
    assert cli.run(["generate", "--script", str(story), "-o", f"{out}/", "--model", str(random_bundle)]) == 0
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    mix = {"a blue square": 1.0, "a red star": 3.0}
    timeline = {1: Change("a blue square", over=1.0), 3: Change(mix, recache=True)}
    expected = pipe("a red circle", num_frames=45, seed=3, timeline=timeline).frames
    from PIL import Image

    shown = np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])
    assert np.array_equal(shown, expected)


def test_over_turns_the_prompts_of_at(tmp_path: Path, random_bundle: Path) -> None:
    out = tmp_path / "out.mp4"
    options = ["--at", "0.5:a blue square", "--over", "1.5", "--seconds", "2", "--model", str(random_bundle)]
    assert cli.run(["generate", "a red circle", "-o", str(out), *options]) == 0
    with av.open(str(out)) as container:
        made = json.loads(container.metadata["comment"])
    assert made["timeline"] == {"0:00.5625": {"prompt": "a blue square", "over": 1.5}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a", "--script", "{story}"], "--script has the prompts and their times; leave out PROMPT"),
        (["--script", "{story}", "--at", "1:b"], "--script has the prompts"),
        (["--script", "{story}", "--seconds", "2"], "line 8 (at 0:02) lies outside the video"),
        (["--script", "{story}", "--over", "1"], "--script has the prompts"),
        ([], "give a prompt, --script FILE or --prompts FILE"),
        (["a", "--over", "-1", "--at", "1:b"], "over must be a number of seconds from 0"),
        (["--script", "{bad}"], "bad.yaml, line 3: unknown name 'promt' in an entry"),
        (["--script", "{adapters}"], "no adapter 'style'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    story: Path,
    tmp_path: Path,
    random_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "bad.yaml").write_text("story:\n- prompt: a\n- promt: b\n")
    adapters = "story:\n- prompt: a\n- at: 1\n  adapters: {style: 0.5}\n"
    (tmp_path / "adapters.yaml").write_text(adapters)
    names = {name: tmp_path / f"{name}.yaml" for name in ("bad", "adapters")}
    given = [option.format(story=story, **names) for option in options]
    out = tmp_path / "out.mp4"
    assert cli.run(["generate", *given, "-o", str(out), "--model", str(random_bundle)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
