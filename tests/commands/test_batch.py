"""`pyrf generate --prompts`: a folder of videos that goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pyrf import cli
from pyrf.commands.prompt_list import MAX_BYTES, Job, read_jobs
from pyrf.streaming.stream import Stream


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_each_form_says_the_same(tmp_path: Path) -> None:
    text = written(tmp_path, "p.txt", '\ufeffa red circle\r\n\r\n  # a note\n Été: a, "b"?\n')
    lines = [json.dumps("a red circle"), "", json.dumps({"prompt": 'Été: a, "b"?'})]
    json_lines = written(tmp_path, "p.jsonl", "\n".join(lines))
    table = written(tmp_path, "p.csv", 'prompt\r\na red circle\r\n\r\n"Été: a, ""b""?"\r\n')
    expected = [Job("0001-a-red-circle.mp4", "a red circle", 7), Job("0002-t-a-b.mp4", 'Été: a, "b"?', 8)]
    assert read_jobs(text, 7) == read_jobs(json_lines, 7) == read_jobs(table, 7) == expected


def test_lines_may_have_seeds_names_and_weights(tmp_path: Path) -> None:
    lines = [
        {"prompt": {"a": 1, "b": 3}, "seed": 5, "name": "Mine 1.mp4"},
        {"prompt": "../../etc/passwd\u0000", "name": None},
        {"prompt": "x" * 300},
        {"prompt": "猫"},
    ]
    jobs = read_jobs(written(tmp_path, "p.jsonl", "\n".join(map(json.dumps, lines))), 0)
    assert jobs[0] == Job("Mine 1.mp4", (("a", 0.25), ("b", 0.75)), 5)
    assert [job.name for job in jobs[1:]] == ["0002-etc-passwd.mp4", f"0003-{'x' * 60}.mp4", "0004.mp4"]
    assert [job.seed for job in jobs[1:]] == [1, 2, 3]
    table = written(tmp_path, "p.csv", "seed,prompt,name\n9,a,b\n,c,\n")
    assert read_jobs(table, 0) == [Job("b.mp4", "a", 9), Job("0002-c.mp4", "c", 1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "\n# only a note\n", "there is no prompt in it"),
        ("p.txt", b"a\n\xff\n", "line 2: not UTF-8"),
        ("p.txt", b"#" + b"x" * MAX_BYTES, "may have 16,777,216 bytes"),
        ("p.doc", "a", "the file must be .txt, .jsonl or .csv"),
        ("p.jsonl", '"a"\n{', "line 2: no JSON"),
        ("p.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("p.jsonl", '"a"\n\n5', "line 3: a line must be a text, or an object"),
        ("p.jsonl", '{"prompt": "a", "sed": 1}', "line 1: a line must be"),
        ("p.jsonl", '{"prompt": " "}', "line 1: the prompt is empty"),
        ("p.jsonl", '{"prompt": {"a": -1}}', "line 1: the weight of 'a'"),
        ("p.jsonl", '{"prompt": ["a", "b"]}', "line 1: a prompt must be a string"),
        ("p.jsonl", '{"prompt": "a", "seed": 1.5}', "line 1: seed must be a whole number"),
        ("p.jsonl", '{"prompt": "a", "seed": -1}', "line 1: seed must be at least 0"),
        ("p.jsonl", '{"prompt": "a", "name": "../b"}', "line 1: name must be up to 100 of"),
        ("p.jsonl", '{"prompt": "a", "name": ".mp4"}', "line 1: name must be"),
        ("p.jsonl", '{"prompt": "a", "name": "CON"}', "line 1: name must be"),
        ("p.jsonl", '{"prompt": "a", "name": 5}', "line 1: name must be"),
        (
            "p.jsonl",
            '{"prompt": "a", "name": "b"}\n{"prompt": "c", "name": "B.mp4"}',
            "line 2: the name B.mp4 is that of line 1",
        ),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "c", "name": "0001-a"}', "line 2: the name 0001-a.mp4 is"),
        ("p.csv", "text\na", "line 1: the columns must be prompt"),
        ("p.csv", "prompt,prompt\na,b", "line 1: the columns"),
        ("p.csv", "", "line 1: the columns"),
        ("p.csv", "prompt,seed\na\n", "line 2: 1 fields where line 1 has 2"),
        ("p.csv", "prompt\na red circle, moving\n", "line 2: 2 fields where line 1 has 1"),
        ("p.csv", 'prompt,seed\n"a\nb",1\nc,x\n', "line 4: seed must be a whole number, got 'x'"),
        ("p.csv", 'prompt\n"a', "line 2: unexpected end of data"),
    ],
)
def test_a_bad_line_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, message: str
) -> None:
    path, out = written(tmp_path, name, content), tmp_path / "out"
    assert cli.run(["generate", "--prompts", path, "-o", str(out), "--model", "no-such-model"]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def generate(folder: Path, prompts: str, bundle: Path, *options: str) -> int:
    small = ["--seconds", "0.5", "--model", str(bundle)]
    return cli.run(["generate", "--prompts", prompts, "-o", str(folder), *small, *options])


def test_what_was_stopped_goes_on_and_nothing_is_made_twice(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = written(tmp_path, "p.txt", "a red circle\na blue square\na green star\n")
    out, begun, make = tmp_path / "out", [], Stream.__next__

    def break_in_the_second(stream: Stream) -> Any:
        begun.append(stream.prompt)
        if len(begun) == 2:
            raise OSError("the disk is full")
        return make(stream)

    monkeypatch.setattr(Stream, "__next__", break_in_the_second)
    assert generate(out, prompts, random_bundle) == 2
    assert "the disk is full at video 2 of 3; the same command goes on from there" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["0001-a-red-circle.mp4"]
    (out / ".0002-a-blue-square.mp4.0123.part.mp4").write_bytes(b"half")  # as a killed process leaves one
    first = (out / "0001-a-red-circle.mp4").stat().st_mtime_ns
    assert generate(out, prompts, random_bundle) == 0
    assert begun == ["a red circle", "a blue square", "a blue square", "a green star"]
    assert (out / "0001-a-red-circle.mp4").stat().st_mtime_ns == first
    assert "3 videos of 0.5 s, 2 of them made now" in capsys.readouterr().out
    assert generate(out, prompts, random_bundle) == 0
    assert len(begun) == 4
    alone = tmp_path / "alone.mp4"
    call = ["generate", "a green star", "--seed", "2", "-o", str(alone), "--seconds", "0.5"]
    assert cli.run([*call, "--model", str(random_bundle)]) == 0
    assert frames_of(alone).shape == (8, 32, 48, 3)
    assert np.array_equal(frames_of(alone), frames_of(out / "0003-a-green-star.mp4"))


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_video_of_something_else_is_never_taken_for_done(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"prompt": "a red circle", "name": "one"}, {"prompt": "a blue square", "name": "two"}]
    prompts = written(tmp_path, "p.jsonl", "\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    assert generate(out, prompts, random_bundle) == 0
    assert generate(out, prompts, random_bundle, "--seed", "4") == 2
    assert "one.mp4 is there, made with seed 0, not 4; move it away" in capsys.readouterr().err
    assert generate(out, prompts, random_bundle, "--seconds", "1") == 2
    assert "one.mp4 is there with 8 frames of 32 x 48, not 16 of" in capsys.readouterr().err
    lines[1]["prompt"] = "a green star"
    assert generate(out, written(tmp_path, "p.jsonl", "\n".join(map(json.dumps, lines))), random_bundle) == 2
    assert "two.mp4 is there, made with prompt 'a blue square', not 'a green star'" in capsys.readouterr().err
    (out / "two.mp4").write_bytes(b"no video")
    assert generate(out, prompts, random_bundle) == 2
    assert "two.mp4 is there, and is no video of pyrf's" in capsys.readouterr().err


def test_a_prompt_that_the_model_cannot_read_stops_all_before_the_first(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = written(tmp_path, "p.txt", "a red circle\n" + "a " * 99)
    assert generate(tmp_path / "out", prompts, random_bundle) == 2
    assert "which is more than the 8 tokens that this model reads" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["a red circle"], ["--at", "1:b"], ["--script", "x"], ["--keep-partial"]])
def test_a_batch_has_its_own_prompts(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    prompts = written(tmp_path, "p.txt", "a red circle")
    assert generate(tmp_path / "out", prompts, random_bundle, *option) == 2
    assert "--prompts has the prompts of a batch" in capsys.readouterr().err


def test_a_batch_needs_a_folder(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = written(tmp_path, "p.txt", "a red circle")
    taken = tmp_path / "out.mp4"
    taken.write_bytes(b"x")
    assert generate(taken, prompts, random_bundle) == 2
    assert "is a file; with --prompts give a folder" in capsys.readouterr().err
