"""What `pyrf generate` refuses or cannot do: one line on stderr, code 2, and nothing left on disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyrf import cli
from pyrf.pipeline import Stream
from tests.support.command_line import PROMPT, call

BAD = {
    "empty prompt": (["", "-o", "{out}.mp4"], "the prompt is empty"),
    "long prompt": (
        ["word " * 10_000, "-o", "{out}.mp4"],
        "has 10000 words, which is more than the 8 tokens",
    ),
    "long later prompt": (["a", "-o", "{out}.mp4", "--at", "1:" + "a " * 99], "more than the 8 tokens"),
    "empty later prompt": (["a", "-o", "{out}.mp4", "--at", "1: "], "the prompt is empty"),
    "no output": (["a"], "Missing option '--output'"),
    "unknown option": (["a", "-o", "{out}.mp4", "--sekonds", "3"], "--sekonds"),
    "unknown extension": (["a", "-o", "{out}.avi"], "unknown extension '.avi'"),
    "missing folder": (["a", "-o", "{out}/x/y.mp4"], "No such file or directory"),
    "no time": (["a", "-o", "{out}.mp4", "--seconds", "0"], "--seconds must be a positive number"),
    "no number": (["a", "-o", "{out}.mp4", "--seconds", "long"], "'--seconds': "),
    "endless": (["a", "-o", "{out}.mp4", "--seconds", "inf"], "--seconds must be a positive number"),
    "too long": (["a", "-o", "{out}.mp4", "--seconds", "1e308"], "--seconds must be a positive number"),
    "bad moment": (["a", "-o", "{out}.mp4", "--at", "soon:b"], "--at: a time is seconds, as 7.5, or [hh:]"),
    "no colon": (["a", "-o", "{out}.mp4", "--at", "2.5"], "--at: TIME:PROMPT is needed, such as"),
    "late moment": (["a", "-o", "{out}.mp4", "--at", "5:b"], "--at 5 lies outside the video"),
    # 80 frames: chunks start at 0, 9, 21, ... 69, and 69 / 16 = 4.3125.
    "no chunk after the moment": (
        ["a", "-o", "{out}.mp4", "--at", "1:b", "--at", "4.32:b"],
        "--at 4.32 comes too late: a prompt changes where a chunk starts, in this video last at 4.312 sec",
    ),
    "only one chunk": (["a", "-o", "{out}.mp4", "--at", ".1:b", "--seconds", ".5"], "last at 0 seconds"),
    "mistyped moment": (["a", "-o", "{out}.mp4", "--at", "0:61:b"], "--at: a time is seconds, as 7.5, or"),
    "no end of the moment": (["a", "-o", "{out}.mp4", "--at", "1:30 a"], "--at: TIME:PROMPT is needed"),
    # Chunks start at 0.5625 s and 1.3125 s.
    "two prompts in one chunk": (
        ["a", "-o", "{out}.mp4", "--at", "00:01:b", "--at", "1.3:c"],
        "--at 00:01 ('b') and --at 1.3 ('c') both begin with the chunk at 1.312 seconds, so one would be",
    ),
    "prompt at the beginning": (["a", "-o", "{out}.mp4", "--at", "0:b"], "--at 0 begins with the video"),
    "bad seed": (["a", "-o", "{out}.mp4", "--seed", "-1"], "seed must lie in 0.."),
    "odd size": (
        ["a", "-o", "{out}.mp4", "--height", "33"],
        "multiple of 16, got 33; try 32",
    ),
    "huge height": (["a", "-o", "{out}.mp4", "--height", str(2**74)], "height must be at most 16384 pixels"),
    "huge width": (["a", "-o", "{out}.mp4", "--width", str(2**62)], "width must be at most 16384 pixels"),
    "huge window": (
        ["a", "-o", "{out}.mp4", "--stream", f"window={3 * 10**30}"],
        "window_frames must be at most 4096",
    ),
    "illegal window": (["a", "-o", "{out}.mp4", "--stream", "window=5"], "window_frames must be a multiple"),
    "bad dtype": (["a", "-o", "{out}.mp4", "--dtype", "int4"], "dtype must be one of"),
    "bad precision": (["a", "-o", "{out}.mp4", "--precision", "fp4"], "precision must be fp8-attention"),
    "bad device": (["a", "-o", "{out}.mp4", "--device", "cuda:9"], "torch sees"),
    "bad backend": (["a", "-o", "{out}.mp4", "--backend", "abacus"], "backend must be one of"),
    "no model": (["a", "-o", "{out}.mp4", "--model", "./nowhere"], "nowhere"),
    "no student": (["a", "-o", "{out}.mp4", "--student", "./nowhere.pt"], "nowhere.pt"),
    "no image": (["a", "-o", "{out}.mp4", "--image", "nowhere.png"], "nowhere.png: there is no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, random_bundle: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, message = BAD[case]
    arguments = [argument.format(out=tmp_path / "out") for argument in arguments]
    if "--model" not in arguments:
        arguments += ["--model", str(random_bundle)]
    assert cli.run(["generate", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_input_in_a_process(tmp_path: Path, random_bundle: Path) -> None:
    result = call("generate", "word " * 10_000, "-o", tmp_path / "out.mp4", "--model", random_bundle)
    assert result.returncode == 2
    assert result.stderr.startswith("error: the prompt has 10000 words")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_damaged_bundle(tmp_path: Path, random_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(random_bundle, copy)
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/out.mp4", "--model", str(copy)]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ")
    assert weights.name in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def allocate_too_much(*_: object) -> None:
    torch.empty(2**60)


def raiser(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        allocate_too_much,
        raiser(MemoryError()),
        raiser(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        raiser(RuntimeError("CUDA error: out of memory")),
        raiser(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")),
    ],
)
def test_out_of_memory_is_one_line(
    tmp_path: Path,
    random_bundle: Path,
    fail: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Stream, "_compute", fail)
    assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/out.mp4", "--model", str(random_bundle)]) == 2
    _, err = capfd.readouterr().err.split("making 80 frames\n")
    assert err.startswith("error: out of memory; ")
    assert "--" not in err  # not every command has the options of this one
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_errors_that_name_memory_are_not_hidden(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(Stream, "_compute", raiser(error))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        cli.run(["generate", PROMPT, "-o", f"{tmp_path}/out.mp4", "--model", str(random_bundle)])
