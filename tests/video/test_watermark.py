"""The mark on every frame, against Pillow's own blending."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyrf import cli
from pyrf.video import Video, Watermark, open_writer, read_frames

TEXT = "made by AI"


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> tuple[slice, slice]:
    """The box of all that differs in some frame."""
    rows, columns = (np.flatnonzero((before != after).any((0, 3)).any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@given(st.integers(16, 200), st.integers(16, 300), st.text("AWgy .,;-@", min_size=1, max_size=64))
def test_it_fits_frames_of_any_size(height: int, width: int, text: str) -> None:
    if not text.strip():
        return
    frames = np.full((2, height, width, 3), 90, np.uint8)
    marked = Watermark(text).on(frames)
    assert marked.shape == frames.shape
    assert marked.dtype == np.uint8
    assert (frames == 90).all()
    assert np.array_equal(marked[0], marked[1])
    rows, columns = changed(frames, marked)
    assert rows.stop > height / 2
    assert columns.stop > width / 2


def test_only_its_box_changes_and_each_frame_keeps_what_shows_through() -> None:
    frames = noise(3, 240, 416)
    rows, columns = changed(frames, Watermark(TEXT).on(frames))
    assert 12 <= rows.stop - rows.start <= 24
    assert 60 <= columns.stop - columns.start <= 140
    assert all(6 <= margin <= 8 for margin in (240 - rows.stop, 416 - columns.stop))
    grey = np.full_like(frames, 128)
    assert changed(grey, Watermark(TEXT).on(grey)) == (rows, columns)
    batch = Watermark(TEXT).on(np.stack([frames, grey]))
    assert np.array_equal(batch[1], Watermark(TEXT).on(grey))


def luminance(levels: np.ndarray) -> np.ndarray:
    """Relative luminance of WCAG 2.2, of grey levels."""
    part = levels / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("ground", [0, 60, 128, 200, 255])
@pytest.mark.parametrize("height", [64, 480])
def test_it_can_be_read_on_any_ground(ground: int, height: int) -> None:
    """Letters and what is around them differ by 4.5, which WCAG asks of text."""
    frames = np.full((1, height, 2 * height, 3), ground, np.uint8)
    marked = Watermark(TEXT).on(frames)
    inside = luminance(marked[(0, *changed(frames, marked), 0)])
    ratio = (inside.max() + 0.05) / (inside.min() + 0.05)
    assert ratio >= 4.5


def test_a_picture_is_blended_as_pillow_does(tmp_path: Path) -> None:
    """In its own size, where an eighth of the frame's height is that; its transparency counts too."""
    pixels = np.random.default_rng(1).integers(0, 256, (30, 50, 4), dtype=np.uint8)
    pixels[:5, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "logo.png")
    mark = Watermark(tmp_path / "logo.png")
    frames = noise(2, 240, 416)
    marked = mark.on(frames)
    rows, columns = slice(204, 234), slice(360, 410)
    mask = Image.fromarray((pixels[..., 3] * 0.7).round().astype(np.uint8))
    expected = frames.copy()
    for frame in expected:
        ground = Image.fromarray(frame[rows, columns])
        ground.paste(Image.fromarray(pixels[..., :3]), mask=mask)
        frame[rows, columns] = np.asarray(ground)
    assert np.abs(marked.astype(int) - expected).max() <= 1
    assert np.array_equal(marked[:, :209], frames[:, :209])  # its first rows are transparent


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 100), "red").save(tmp_path / "wide.jpg")
    grey = np.full((1, 64, 96, 3), 128, np.uint8)
    rows, columns = changed(grey, Watermark(tmp_path / "wide.jpg").on(grey))
    assert columns.stop - columns.start == 86
    assert rows.stop - rows.start == 4


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("", "a line of 1..64 characters"),
        ("a\nb", "a line of 1..64 characters"),
        ("a" * 65, "a line of 1..64 characters"),
        ("東京", "no '東'; give a picture"),
        ("nowhere.png", "cannot read .*nowhere.png: there is no such file"),
        ("bad.png", "cannot read .*bad.png as an image"),
        ("large.PNG", "4000000 pixels at most, got 2500 x 2000"),
    ],
)
def test_what_cannot_be_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.png").write_bytes(b"no picture")
    Image.new("1", (2500, 2000)).save("large.PNG")
    with pytest.raises(ValueError, match=words):
        Watermark(mark)


def test_every_sink_marks_what_it_takes(tmp_path: Path) -> None:
    frames, mark = noise(3, 64, 96), Watermark(TEXT)
    place = Video(frames, 16, {"prompt": "a"}).save(tmp_path / "marked/", watermark=mark)
    shown = [read_frames(path, height=64, width=96, fps=16)[0] for path in sorted(place.iterdir())]
    assert np.array_equal(np.stack(shown), mark.on(frames))
    with Image.open(place / "frame_000000.png") as image:
        assert json.loads(image.info["Comment"]) == {"prompt": "a", "watermark": TEXT}
    with (tmp_path / "raw").open("wb") as file, open_writer(file, 16, watermark=mark, raw=True) as writer:
        writer.write(frames[:1])
        writer.write(frames[1:])
    assert (tmp_path / "raw").read_bytes() == mark.on(frames).tobytes()


def test_the_command_marks_its_video_and_a_batch(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--seconds", "0.5", "--model", str(random_bundle)]
    for folder, options in (("plain/", []), ("marked/", ["--watermark", TEXT])):
        call = ["generate", "a red circle", "-o", f"{tmp_path}/{folder}", *small, *options]
        assert cli.run(call) == 0, capsys.readouterr().err
    plain, marked = (
        np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / name).iterdir())])
        for name in ("plain", "marked")
    )
    assert np.array_equal(marked, Watermark(TEXT).on(plain))
    (tmp_path / "p.txt").write_text("a red circle")
    batch = ["generate", "--prompts", f"{tmp_path}/p.txt", "-o", f"{tmp_path}/batch", *small]
    assert cli.run([*batch, "--watermark", TEXT]) == 0
    assert cli.run([*batch, "--watermark", TEXT]) == 0
    capsys.readouterr()
    assert cli.run(batch) == 2
    assert f"made with watermark '{TEXT}', not None" in capsys.readouterr().err
    call = ["generate", "a", "-o", f"{tmp_path}/a.mp4", "--model", "no-such-model", "--watermark", "no.png"]
    assert cli.run(call) == 2
    assert "no.png: there is no such file" in capsys.readouterr().err
