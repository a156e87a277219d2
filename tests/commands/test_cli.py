"""The `pyrf` command: in a process of its own for the main paths, through `run` for the rest."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import pyrf
from pyrf import cli
from pyrf.evaluation import held_out
from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.signals import hear_signals
from tests.support.video_files import decode

PROMPT = "a red circle moves right"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", "from pyrf.cli import main; main()", *map(str, arguments)]


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)


def shape_of(path: Path) -> tuple[int, ...]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).shape


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys\nfrom pyrf.cli import run\n"
        "for line in (['--help'], ['generate', '--help'], ['--version'], []):\n"
        "    assert run(line) == 0\n"
        "print('heavy:', *(m for m in ('torch', 'numpy', 'av', 'transformers') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pyrf {pyrf.__version__}" in result.stdout
    assert "--at" in result.stdout
    assert result.stdout.strip().endswith("heavy:")


@pytest.fixture
def pipe(random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle))


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out.png", "out/"])
def test_generate_writes_each_format(tmp_path: Path, random_bundle: Path, name: str) -> None:
    output = f"{tmp_path}/{name}"
    result = call("generate", PROMPT, "-o", output, "--seconds", "1", "--seed", "3", "--model", random_bundle)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "making 16 frames\n"  # no terminal: no bar
    line = result.stdout.splitlines()[-1]
    assert line.startswith(f"{output}: 16 frames, 1.00 s of video; ")
    assert "FPS end to end, first frame " in line
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]
    if name == "out/":
        assert len(list(Path(output).iterdir())) == 16
    elif name == "out.png":
        with Image.open(output) as image:
            assert image.size == (6 * (WIDTH + 2) - 2, 3 * (HEIGHT + 2) - 2)
    else:
        assert shape_of(Path(output)) == (16, HEIGHT, WIDTH, 3)


def read_folder(path: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])


def generate(tmp_path: Path, model: Path, *options: str) -> np.ndarray:
    """Frames of an in-process `pyrf generate` to a folder."""
    folder = tmp_path / f"frames{len(list(tmp_path.iterdir()))}"
    assert cli.run(["generate", PROMPT, "-o", f"{folder}/", "--model", str(model), *options]) == 0
    return read_folder(folder)


def test_generate_shows_what_the_pipeline_makes(
    tmp_path: Path, random_bundle: Path, pipe: StreamingPipeline
) -> None:
    frames = generate(tmp_path, random_bundle, "--seconds", "2.5", "--seed", "7")
    assert np.array_equal(frames, pipe(PROMPT, num_frames=40, seed=7).frames)


@pytest.mark.parametrize(("fps", "count"), [(12.5, 25), (23.976, 48), (29.97, 60)])
def test_generate_makes_the_seconds_at_a_rate_that_is_not_whole(
    tmp_path: Path, random_bundle: Path, fps: float, count: int
) -> None:
    index = json.loads((random_bundle / "model_index.json").read_text())
    index["pyrf"]["fps"] = fps
    (tmp_path / "model").mkdir()
    for part in random_bundle.iterdir():
        (tmp_path / "model" / part.name).symlink_to(part)
    (tmp_path / "model" / "model_index.json").unlink()
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    path = tmp_path / "a.mp4"
    assert cli.run(["generate", PROMPT, "-o", str(path), "--seconds=2", f"--model={tmp_path}/model"]) == 0
    assert shape_of(path)[0] == count
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(fps, rel=1e-6)


def test_generate_switches_prompts(tmp_path: Path, random_bundle: Path, pipe: StreamingPipeline) -> None:
    switches = ("--at", "00:02.0625:a blue star: white", "--at=1.0:a green square")
    frames = generate(tmp_path, random_bundle, "--seconds=3.5", *switches)
    with pipe.stream(PROMPT) as stream:
        expected = []
        # 1.0 s is frame 16, within the chunk of 9..20; 2.0625 s is frame 33, where a chunk starts.
        for prompt in (PROMPT, PROMPT, "a green square", "a blue star: white", "a blue star: white"):
            stream.prompt = prompt
            expected.append(next(stream).frames)
    assert np.array_equal(frames, np.concatenate(expected)[:56])


@pytest.mark.parametrize("start", [None, "image"])
def test_generate_switches_at_the_last_chunk_but_no_later(
    tmp_path: Path,
    random_bundle: Path,
    pipe: StreamingPipeline,
    start: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, last = ["--seconds=2", "--model", str(random_bundle)], 21 / 16  # chunks of 9, 12 and 11 frames
    if start:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "image.png")
        options += ["--image", f"{tmp_path}/image.png", "--start", "still"]
        last = 24 / 16  # chunks of 12, 12 and 8
    shown = []
    for name, at in (("plain", []), ("switched", ["--at", f"{last}:a blue star"])):
        assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/{name}/", *options, *at]) == 0
        shown.append(read_folder(tmp_path / name))
    frame = int(16 * last)
    assert np.array_equal(shown[0][:frame], shown[1][:frame])
    assert not np.array_equal(shown[0][frame:], shown[1][frame:])
    at = ["--at", f"{last + 1 / 16}:a blue star"]
    assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/late/", *options, *at]) == 2
    assert "last at 1." in capsys.readouterr().err
    assert not (tmp_path / "late").exists()


def test_generate_continues_images_and_videos(
    tmp_path: Path, random_bundle: Path, pipe: StreamingPipeline
) -> None:
    clip = pipe("a yellow square", num_frames=50).frames
    Image.fromarray(clip[0]).save(tmp_path / "image.png")
    from_image = generate(tmp_path, random_bundle, "--seconds=1", "--image", f"{tmp_path}/image.png")
    assert np.array_equal(from_image, pipe(PROMPT, num_frames=16, image=clip[0]).frames)
    for start in ("still", "first_frame"):
        found = generate(
            tmp_path, random_bundle, "--seconds=1", "--image", f"{tmp_path}/image.png", "--start", start
        )
        assert np.array_equal(found, pipe(PROMPT, num_frames=16, image=clip[0], start=start).frames)
    path = pipe("a yellow square", num_frames=50).save(tmp_path / "clip.mp4")
    from_video = generate(tmp_path, random_bundle, "--seconds=1", "--image", str(path))
    end = decode(path)[-33:]
    assert np.array_equal(from_video, pipe(PROMPT, num_frames=16, video=end).frames)


def test_generate_fits_an_image_or_refuses_it(
    tmp_path: Path, random_bundle: Path, pipe: StreamingPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    large = Image.fromarray(pipe(PROMPT, num_frames=1).frames[0]).resize((100, 100))
    large.save(tmp_path / "image.png")
    padded = generate(
        tmp_path, random_bundle, "--seconds=1", "--image", f"{tmp_path}/image.png", "--fit", "pad"
    )
    assert np.array_equal(padded, pipe(PROMPT, num_frames=16, image=large, fit="pad").frames)
    options = ["--model", str(random_bundle), "--image", f"{tmp_path}/image.png", "--seconds", "1"]
    command = ["generate", PROMPT, "-o", f"{tmp_path}/refused/", *options]
    assert cli.run([*command, "--fit", "refuse"]) == 2
    assert "must be 32 x 48, got 100 x 100" in capsys.readouterr().err
    assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/refused/", *options[:2], "--start", "still"]) == 2
    assert "says how an image begins the stream" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


def test_generate_takes_size_and_window(tmp_path: Path, random_bundle: Path) -> None:
    frames = generate(
        tmp_path, random_bundle, "--seconds=0.1", "--height=16", "--width=64", "--stream=window=12"
    )
    assert frames.shape == (2, 16, 64, 3)


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


def test_bad_input_in_a_process(tmp_path: Path, random_bundle: Path) -> None:
    result = call("generate", "word " * 10_000, "-o", tmp_path / "out.mp4", "--model", random_bundle)
    assert result.returncode == 2
    assert result.stderr.startswith("error: the prompt has 10000 words")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_damaged_bundle(tmp_path: Path, random_bundle: Path) -> None:
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "-r", random_bundle, copy], check=True)
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    result = call("generate", PROMPT, "-o", tmp_path / "out.mp4", "--model", copy)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert weights.name in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def has_content(folder: Path) -> bool:
    """Whether a file of the folder has bytes: frames are being written."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size for path in folder.iterdir())
    return False


STOPS = [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")]


@pytest.mark.parametrize(("number", "code", "name"), STOPS)
@pytest.mark.parametrize("keep", [False, True])
def test_a_signal_ends_with_one_line(
    tmp_path: Path, random_bundle: Path, number: int, code: int, name: str, keep: bool
) -> None:
    arguments: tuple[str | Path, ...] = (
        "generate",
        PROMPT,
        "-o",
        tmp_path / "out.mp4",
        "--seconds",
        "9999",
        "--model",
        random_bundle,
        *(["--keep-partial"] if keep else []),
    )
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    ) as process:
        while process.poll() is None and not has_content(tmp_path):
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == code
    assert out == b""
    begun, *_, line = err.decode().splitlines(keepends=True)  # between them, how far it has come
    assert begun == "making 159984 frames\n"
    if keep:
        kept = re.fullmatch(rf"stopped by {name} \((\d+) frames? kept as {tmp_path}/out.mp4\)\n", line)
        assert kept, line
        assert shape_of(tmp_path / "out.mp4")[0] == int(kept.group(1))
    else:
        assert re.fullmatch(
            rf"stopped by {name} after \d+ of 159984 frames; --keep-partial would keep them\n", line
        ), line
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] * keep


def test_a_video_on_stdout_is_all_that_is_there(tmp_path: Path, random_bundle: Path) -> None:
    arguments = command("generate", PROMPT, "-o", "-", "--seconds=1.5", "--at=.6:b", "--model", random_bundle)
    result = subprocess.run(arguments, capture_output=True, timeout=120, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.splitlines()[-1].startswith(b"stdout: 24 frames, 1.50 s of video; ")
    with av.open(io.BytesIO(result.stdout), "r") as container:
        assert len(list(container.decode(video=0))) == 24
        made = json.loads(container.metadata["comment"])
    assert made.pop("pyrf") == pyrf.__version__
    assert made == {
        "prompt": PROMPT,
        "seed": 0,
        "model": random_bundle.name,  # not its path, which is the user's own matter
        "timeline": {"0:01.3125": "b"},
    }
    assert list(tmp_path.iterdir()) == []


def test_a_player_that_is_closed_ends_the_video(random_bundle: Path) -> None:
    arguments = command("generate", PROMPT, "-o", "-", "--seconds=9999", "--model", random_bundle)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(8)[4:] == b"ftyp"
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 141
    assert err.splitlines()[-1] == b"stopped: whoever read the output has gone"


def test_a_terminal_gets_no_video(random_bundle: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = command("generate", PROMPT, "-o", "-", "--model", random_bundle)
    result = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, timeout=120)
    os.close(theirs)
    os.close(ours)
    assert result.returncode == 2
    assert b"error: -o - writes the video to stdout, which is a terminal here; pipe it into" in result.stderr


def test_a_video_is_made_though_its_name_cannot_be_printed(tmp_path: Path, random_bundle: Path) -> None:
    output = tmp_path / "\u2192.mp4"
    arguments = command("generate", PROMPT, "-o", output, "--seconds=.5", "--model", random_bundle)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    with Path("/dev/full").open("w") as full:
        for stdout in (subprocess.PIPE, full):
            result = subprocess.run(arguments, stdout=stdout, stderr=subprocess.PIPE, env=environment)
            assert result.returncode == 0, result.stderr
            told = result.stderr if stdout is full else result.stdout
            assert told.splitlines()[-1].startswith(str(tmp_path).encode() + b"/\\u2192.mp4: 8 frames")
            assert shape_of(output)[0] == 8


def test_a_whole_video_is_kept_when_its_name_is_taken_meanwhile(
    tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compute = Stream._compute

    def take_the_name(self: Stream) -> Chunk | None:
        (tmp_path / "out.mp4").mkdir(exist_ok=True)
        return compute(self)

    monkeypatch.setattr(Stream, "_compute", take_the_name)
    arguments = ["generate", PROMPT, "-o", f"{tmp_path}/out.mp4", "--seconds=.5"]
    assert cli.run([*arguments, "--model", str(random_bundle)]) == 2
    assert f"is whole and kept as {tmp_path}/out-1.mp4" in capsys.readouterr().err
    assert shape_of(tmp_path / "out-1.mp4")[0] == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "tiny", "--out", "-"],
        ["train", "tiny", "--out", "-"],
        ["eval", "--sheet", "-"],
        ["eval", "study", "--out", "-"],
        ["eval", "study", "--out", "x", "--page", "-"],
    ],
)
def test_other_commands_make_nothing_of_a_dash(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    assert f"{arguments[-2]} - is no name; this command writes to a place on disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--dry-run"], ["--out", "x"]])
def test_a_stage_that_is_not_there_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "tiny", "--stage", "codec", "--stage", "nope", *options]) == 2
    assert "the recipe has no stage 'nope'; its stages are codec, " in capsys.readouterr().err


def test_scores_are_told_though_their_sheet_has_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"

    def evaluate(*_: object) -> tuple[dict[str, float], list[tuple[str, np.ndarray]]]:
        sheet.mkdir()
        return {"color": 0.5}, [("a red circle", np.zeros((9, 64, 96, 3), np.uint8))]

    monkeypatch.setattr(held_out, "evaluate", evaluate)
    assert cli.run(["eval", "--prompts", "1", "--sheet", str(sheet)]) == 2
    out, err = capsys.readouterr()
    assert "1 held-out prompt, 5 s streams" in out
    assert "color             50.0 %" in out
    assert f"is whole and kept as {tmp_path}/sheet-1.png" in err
    with Image.open(tmp_path / "sheet-1.png") as image:
        assert image.width > 96


def test_help_that_is_named_is_the_command_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, name in ((["generate"], "pyrf generate"), (["eval", "study"], "pyrf eval study")):
        assert cli.run(arguments) == 2
        assert f"(see {name} --help)" in capsys.readouterr().err


def test_doctor_is_healthy_or_names_the_problem(random_bundle: Path) -> None:
    result = call("doctor", "--model", random_bundle)
    lines = result.stdout.splitlines()
    found = {line[9:].split(":")[0]: line[:7].strip() for line in lines}
    assert set(found) >= {"pyrf", "torch", "cuda", "native module", "video codecs", f"model {random_bundle}"}
    assert all(found[name] == "ok" for name in found if name != "native module")
    assert f"its first chunk has 9 frames of {HEIGHT} x {WIDTH}" in result.stdout
    assert result.returncode == (1 if "problem" in found.values() else 0)


def test_doctor_reports_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--model", "./nowhere"]) == 1
    out = capsys.readouterr().out
    assert "problem  model ./nowhere: " in out
    assert "ok       torch: " in out


def test_bench_prints_one_json_object(random_bundle: Path) -> None:
    options = ("--chunks", "3", "--repeats", "2", "--warm-up", "1", "--threads", "1", "--json")
    result = call("bench", "--model", random_bundle, *options)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["method"]["threads"] == 1
    assert values["method"]["chunks"] == 3
    assert values["method"]["dtype"] == "float32"
    assert values["method"]["codec"] == "TAEHVCodec"
    assert values["denoise_fps"] > values["end_to_end_fps"] > 0
    assert values["chunk_p99_ms"] >= values["chunk_p50_ms"] > 0
    assert values["first_frame_ms"] > 0
    assert values["peak_rss_mib"] > 50


def test_bench_states_its_method(random_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "--model", str(random_bundle), "--seconds=1", "--repeats=1", "--warm-up=0"]) == 0
    out = capsys.readouterr().out
    for words in (
        f"model {random_bundle}, float32, {HEIGHT} x {WIDTH} at 16 fps",
        "window 9",
        "warm-up 0 chunks, then 1 stream of 2 chunks",
        "end to end",
        "denoise only",
    ):
        assert words in out
    assert "student" not in out


def test_bench_names_student_and_export(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    monkeypatch.setattr(StreamingPipeline, "from_pretrained", lambda *_, **__: pipe)
    options = ["--student=mine.pt", "--exported=graphs", "--chunks=2", "--repeats=1", "--warm-up=0"]
    assert cli.run(["bench", *options]) == 0
    out = capsys.readouterr().out
    assert "model tiny with student mine.pt, " in out
    assert "backend torch on graphs" in out
    assert cli.run(["bench", *options, "--json"]) == 0
    method = json.loads(capsys.readouterr().out)["method"]
    assert (method["student"], method["exported"]) == ("mine.pt", "graphs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunks=1"], "chunks must be at least 2"),
        (["--repeats=0"], "repeats must be at least 1"),
        (["--warm-up=-1"], "warm-up must be at least 0"),
        (["--threads=0"], "--threads must lie in 1..1024, got 0"),
        (["--threads=1000000000000"], "--threads must lie in 1..1024, got 1000000000000"),
        (["--seconds=-1"], "--seconds must be a positive number"),
        (["--seconds=1e308"], "--seconds must be a positive number up to 1000000, got 1e+308"),
        (["--seconds=0.5625"], "--seconds must reach beyond the first chunk, which lasts 0.5625 seconds"),
        (["--seconds=1", "--chunks=4"], "--chunks or --seconds, not both"),
    ],
)
def test_bad_bench_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", *options]) == 2
    assert message in capsys.readouterr().err


def test_threads_are_set_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()

    def load(**_: object) -> None:
        raise ValueError(f"loaded with {torch.get_num_threads()} threads")

    monkeypatch.setattr(StreamingPipeline, "from_pretrained", load)
    try:
        assert cli.run(["serve", "--port", "0", "--threads", str(threads + 1)]) == 2
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().err == f"error: loaded with {threads + 1} threads\n"


def test_command_without_arguments_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["generate"]) == 2
    assert cli.run(["dance"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "dance" in err
