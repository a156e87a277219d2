"""`pyrf eval vbench sample`: prompts from files, shards, resuming, and what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import av
import pytest

from pyrf import cli
from pyrf.evaluation.vbench.makers import CommandMaker, Form
from pyrf.evaluation.vbench.prompts import Prompt, dimensions_of, read_prompts
from pyrf.evaluation.vbench.sample import Shard, check_video, jobs, manifest, sample
from tests.support.vbench import INFO, write_info, write_video

FORM = Form(9, 64, 96)


class Fake:
    """Makes grey videos, and remembers what it was asked for."""

    def __init__(self, form: Form = FORM) -> None:
        self.form, self.about = form, {"model": "fake"}
        self.asked: list[tuple[str, int]] = []

    def make(self, text: str, seed: int, form: Form, path: Path) -> None:
        self.asked.append((text, seed))
        write_video(path, *self.form)


def test_prompts_are_vbenchs_own(tmp_path: Path) -> None:
    info = write_info(tmp_path)
    extended = tmp_path / "extended.txt"
    extended.write_text("".join(f"{entry['prompt_en']}, at length, in a forest\n" for entry in INFO))
    prompts = read_prompts(info, extended)
    assert [p.name for p in prompts] == ["a cat runs", "a red car", "two dogs"]  # a text twice is made once
    assert prompts[0].text == "a cat runs, at length, in a forest"
    assert dimensions_of(info)["color"] == {"a red car"}
    extended.write_text("\n".join(["something else entirely"] * len(INFO)))
    with pytest.raises(ValueError, match="do not go together: 0 of 4"):
        read_prompts(info, extended)
    extended.write_text("a cat\n")
    with pytest.raises(ValueError, match=r"4 prompts, .* 1; give two files of one order"):
        read_prompts(info, extended)


@pytest.mark.parametrize("text", ["a/b", ".hidden", "x" * 241, "a\x00b"])
def test_a_prompt_that_names_no_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{"prompt_en": text, "dimension": ["color"]}]))
    with pytest.raises(ValueError, match=r"cannot be the name|too long"):
        read_prompts(tmp_path / "p.json")


def test_long_prompts_are_cut_and_stay_apart(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("A wide_shot of " + "sand " * 60 + "\n")
    assert read_prompts(file, long=True)[0].name == ("A wide shot of " + "sand " * 60)[:100].strip()
    file.write_text("x" * 120 + " one\n" + "x" * 120 + " two\n")
    with pytest.raises(ValueError, match="one name"):
        read_prompts(file, long=True)


def test_shards_have_every_video_once() -> None:
    prompts = [Prompt(f"p{i}", f"text {i}") for i in range(7)]
    whole = jobs(prompts, seed=3)
    assert whole[:2] == [("p0-0.mp4", "text 0", 3), ("p0-1.mp4", "text 0", 4)]
    parts = [jobs(prompts, seed=3, shard=Shard.parse(f"{k}/8")) for k in range(1, 9)]
    assert sorted(job for part in parts for job in part) == sorted(whole)
    assert {len(part) for part in parts} == {4, 5}
    for text in ("0/8", "9/8", "2", "2/0", "a/b", "-1/2"):
        with pytest.raises(ValueError, match="2/8"):
            Shard.parse(text)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    info, out, maker = write_info(tmp_path), tmp_path / "out", Fake()
    todo = jobs(read_prompts(info))
    about = manifest(maker, FORM, {"original": info}, 5, 0, 3)
    assert sample(maker, todo, FORM, out, about, Shard()) == 15
    assert sorted(path.name for path in out.iterdir()) == ["manifest-1-of-1.json", "videos"]
    (out / "videos/two dogs-3.mp4").unlink()
    maker.asked.clear()
    assert sample(maker, todo, FORM, out, about, Shard()) == 1
    assert maker.asked == [("two dogs", 3)]
    told = json.loads((out / "manifest-1-of-1.json").read_text())
    assert len(told["prompts"]["original"]["sha256"]) == len(told["code"]["source"]) == 64
    other = manifest(maker, FORM, {"original": info}, 5, 7, 3)
    with pytest.raises(ValueError, match="another settings first_seed"):
        sample(maker, todo, FORM, out, other, Shard(2, 2))
    assert not (out / "manifest-2-of-2.json").exists()


def test_a_video_of_another_form_does_not_count(tmp_path: Path) -> None:
    info, out, maker = write_info(tmp_path), tmp_path / "out", Fake(Form(8, 64, 96))
    about = manifest(maker, FORM, {"original": info}, 5, 0, 3)
    with pytest.raises(ValueError, match="8 frames of 64 x 96 at 16 fps, not 9"):
        sample(maker, jobs(read_prompts(info)), FORM, out, about, Shard())
    assert not list((out / "videos").iterdir())
    assert not list(out.glob(".making*"))


WRITE = """
import sys, numpy
from pyrf.video.files import Video
prompt, output, frames, height, width, fps = sys.argv[1:]
assert "{seed}" in prompt, prompt
Video(numpy.zeros((int(frames), int(height), int(width), 3), numpy.uint8), float(fps)).save(output)
"""


def test_any_command_makes_videos(tmp_path: Path) -> None:
    script, out = tmp_path / "make.py", tmp_path / "a.mp4"
    script.write_text(WRITE)
    line = shlex.join([sys.executable, str(script)]) + " {prompt} {output} {frames} {height} {width} {fps}"
    with pytest.raises(ValueError, match=r"must have \{seed\}"):
        CommandMaker(line)
    maker = CommandMaker(f"env S={{seed}} {line}", [script])
    maker.make('$(touch x) "{seed}"', 4, FORM, out)  # neither a shell nor a second filling in
    check_video(out, FORM)
    other = CommandMaker(f"env S={{seed}} {line} ", [script])
    assert maker.about["weights"] == other.about["weights"] != "not given"
    with pytest.raises(ValueError, match="AssertionError: nothing"):
        maker.make("nothing", 4, FORM, out)
    with pytest.raises(ValueError, match="no field 'size'"):
        CommandMaker("make {prompt} {seed} {output} {size}")


def test_the_bundled_model_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, extended, out = tmp_path / "p.txt", tmp_path / "e.txt", tmp_path / "out"
    prompts.write_text("a red circle\n")
    extended.write_text("a large red circle moves right\n")
    command = ["eval", "vbench", "sample", "--prompts", str(prompts), "--extended", str(extended)]
    command += ["--out", str(out), "--frames", "9", "--height", "64", "--width", "96", "--samples", "2"]
    assert cli.run(command) == 0, capsys.readouterr().err
    assert {path.name for path in (out / "videos").iterdir()} == {"a red circle-0.mp4", "a red circle-1.mp4"}
    with av.open(str(out / "videos/a red circle-1.mp4")) as container:
        made = json.loads(container.metadata["comment"])
    assert (made["prompt"], made["seed"]) == ("a large red circle moves right", 1)
    assert cli.run(command) == 0
    assert "0 made now" in capsys.readouterr().out
    told = json.loads((out / "manifest-1-of-1.json").read_text())
    assert told["maker"]["model"] == "tiny"
    assert len(told["maker"]["weights"]) == 64
