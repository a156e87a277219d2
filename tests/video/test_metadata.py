"""What files say of how they were made, read with other programs' readers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile

from pyrf.video import Video, open_writer
from tests.support.video_files import ramp

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=400)
MADE = {"prompt": "a réd circle → \U0001f534", "seed": 2**63 - 1, "timeline": {"0:05": 'a "blue" square\n'}}


def read(path: Path) -> Any:
    if path.suffix in (".mp4", ".mov", ".mkv", ".webm"):
        return json.loads(tags(path)["comment"])
    with Image.open(path) as image:
        if path.suffix == ".webp":
            return json.loads(image.getexif()[0x010E])
        if isinstance(image, PngImageFile):
            return json.loads(image.text["Comment"])
        return json.loads(image.info["comment"])


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {name.lower(): value for name, value in container.metadata.items()}


KINDS = ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "a.apng", "a.webp", "a.png", "a.jpg"]


@pytest.mark.parametrize("name", [*KINDS, "a/"])
def test_every_format_has_all_of_it(tmp_path: Path, name: str) -> None:
    Video(ramp(), 16, MADE).save(f"{tmp_path}/{name}")
    for path in (tmp_path / "a").iterdir() if name == "a/" else [tmp_path / name]:
        assert read(path) == MADE
    if name in ("a.mp4", "a.mov", "a.mkv", "a.webm"):
        assert tags(tmp_path / name)["description"] == MADE["prompt"]


@pytest.mark.parametrize("count", [1, 20])
def test_a_webp_with_metadata_shows_the_same(tmp_path: Path, count: int) -> None:
    """One frame alone is a simple file, which has no place for metadata before it gets one."""
    Video(ramp()[:count], 16).save(tmp_path / "plain.webp")
    Video(ramp()[:count], 16, MADE).save(tmp_path / "told.webp")
    assert read(tmp_path / "told.webp") == MADE
    with Image.open(tmp_path / "plain.webp") as plain, Image.open(tmp_path / "told.webp") as told:
        frames = getattr(plain, "n_frames", 1)  # libwebp shows a frame for longer that the next one equals
        assert getattr(told, "n_frames", 1) == frames
        assert (frames > 1) == (count > 1)
        for i in range(frames):
            plain.seek(i)
            told.seek(i)
            assert plain.convert("RGB").tobytes() == told.convert("RGB").tobytes()


def test_more_than_a_jpeg_holds_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a JPEG holds 65533 bytes of metadata, got 70\d\d\d; choose \.png"):
        open_writer(tmp_path / "a.jpg", 16, metadata={"prompt": "a" * 70_000})
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=20)
@given(TEXT, st.integers(0, 2**63 - 1))
def test_any_prompt_is_read_back(tmp_path_factory: pytest.TempPathFactory, prompt: str, seed: int) -> None:
    folder, made = tmp_path_factory.mktemp("made"), {"prompt": prompt, "seed": seed}
    for name in ("a.mp4", "a.gif", "a.png", "a.webp"):
        Video(ramp()[:1], 16, made).save(folder / name)
        assert read(folder / name) == made


@pytest.mark.parametrize("length", [254, 255, 256, 510, 511, 2000])
def test_a_prompt_longer_than_a_block_is_read_back(tmp_path: Path, length: int) -> None:
    """A GIF's comment has blocks of 255 bytes."""
    made = {"prompt": ""}
    letters = (chr(ord("a") + i % 26) for i in range(length - len(json.dumps(made))))
    made["prompt"] = "".join(letters)
    assert len(json.dumps(made)) == length
    for name in KINDS:
        Video(ramp()[:1], 16, made).save(tmp_path / name)
        assert read(tmp_path / name) == made


def test_what_a_file_cannot_say_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metadata must have JSON values: Object of type set"):
        open_writer(tmp_path / "a.mp4", 16, metadata={"prompt": {1}})
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_that_is_no_utf_8_is_read_back(tmp_path: Path) -> None:
    made = {"prompt": "a \udcff circle"}
    for name in KINDS:
        Video(ramp()[:1], 16, made).save(tmp_path / name)
        assert read(tmp_path / name) == made


def test_a_live_video_says_it_from_its_beginning() -> None:
    target = io.BytesIO()
    writer = open_writer(target, 16, metadata=MADE)
    writer.write(ramp()[:9])
    with av.open(io.BytesIO(target.getvalue())) as container:
        assert json.loads(container.metadata["comment"]) == MADE
    writer.close()


def test_without_metadata_files_say_nothing_and_pictures_are_the_same(tmp_path: Path) -> None:
    Video(ramp(), 16).save(tmp_path / "a.gif")
    Video(ramp(), 16, MADE).save(tmp_path / "b.gif")
    with Image.open(tmp_path / "a.gif") as plain, Image.open(tmp_path / "b.gif") as told:
        assert "comment" not in plain.info
        for i in range(20):
            plain.seek(i)
            told.seek(i)
            assert plain.convert("RGB").tobytes() == told.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("fps", "count", "shown"), [(16, 20, 20), (50, 20, 20), (60, 60, 50), (240, 240, 50)]
)
def test_a_gif_lasts_as_long_as_its_video(tmp_path: Path, fps: float, count: int, shown: int) -> None:
    """Players take a delay below 20 ms for 100 ms."""
    with open_writer(tmp_path / "a.gif", fps) as writer:
        for i in range(count):
            writer.write(ramp()[i % 20][None])
        assert writer.num_frames == count
    delays = []
    with Image.open(tmp_path / "a.gif") as image:
        assert isinstance(image, GifImageFile)
        assert image.n_frames == shown
        for i in range(shown):
            image.seek(i)
            delays.append(image.info["duration"])
    assert min(delays) >= 20
    assert sum(delays) == pytest.approx(1000 * count / fps, abs=20)


def test_a_gif_that_stands_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a frame for at most 655 seconds"):
        Video(ramp(), 0.001).save(tmp_path / "a.gif")
