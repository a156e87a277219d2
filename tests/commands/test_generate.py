"""`pyrf generate`: its frames are the pipeline's, in each format, of each beginning and size."""

import json
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from tests.support.command_line import PROMPT, call, generate, read_folder, shape_of
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.video_files import decode


@pytest.fixture(scope="module")
def pipe(random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle))


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out.png", "out/"])
def test_generate_writes_each_format(
    tmp_path: Path, random_bundle: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    output = f"{tmp_path}/{name}"
    options = ["--seconds", "1", "--seed", "3", "--model", str(random_bundle)]
    if name == "out.mp4":  # in a process of its own
        result = call("generate", PROMPT, "-o", output, *options)
        assert result.returncode == 0, result.stderr
        out, err = result.stdout, result.stderr
    else:
        assert cli.run(["generate", PROMPT, "-o", output, *options]) == 0
        out, err = capfd.readouterr()
    assert err == "making 16 frames\n"  # no terminal: no bar
    line = out.splitlines()[-1]
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


def test_the_valley_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make demo` asks for, shorter; the model knows all of its words."""
    monkeypatch.delenv("PYRF_MODEL")
    makefile = (Path(__file__).parents[2] / "Makefile").read_text().replace("\\\n", " ")
    (line,) = [line for line in makefile.splitlines() if "pyrf generate" in line]
    prompt, *options = shlex.split(line.partition("generate")[2])
    options[options.index("--seconds") + 1] = "1"
    options[options.index("-o") + 1] = str(tmp_path / "demo.mp4")
    options[options.index("--at") + 1] = options[options.index("--at") + 1].replace("5:", "0.5:")
    result = call("generate", prompt, *options)
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    assert shape_of(tmp_path / "demo.mp4") == (16, 192, 320, 3)


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
        tmp_path, random_bundle, "--seconds=1", "--image", f"{tmp_path}/image.png", "--image-fit", "pad"
    )
    assert np.array_equal(padded, pipe(PROMPT, num_frames=16, image=large, fit="pad").frames)
    options = ["--model", str(random_bundle), "--image", f"{tmp_path}/image.png", "--seconds", "1"]
    command = ["generate", PROMPT, "-o", f"{tmp_path}/refused/", *options]
    assert cli.run([*command, "--image-fit", "refuse"]) == 2
    assert "must be 32 x 48, got 100 x 100" in capsys.readouterr().err
    assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/refused/", *options[:2], "--start", "still"]) == 2
    assert "says how an image begins the stream" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


def test_generate_takes_size_and_window(tmp_path: Path, random_bundle: Path) -> None:
    frames = generate(
        tmp_path, random_bundle, "--seconds=0.1", "--height=16", "--width=64", "--stream=window=12"
    )
    assert frames.shape == (2, 16, 64, 3)
