"""The measures of any videos tell good ones from those spoilt on purpose."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

pytest.importorskip("cv2", reason="optical flow is OpenCV's, from the eval extra")

from pyrf.evaluation.videos.clip import Clip, read_clip
from pyrf.evaluation.videos.measures import Chunks, measure
from pyrf.video.files import Video
from pyrf.video.writer import Frames
from tests.support.spoilt import (
    brightened_at_borders,
    colour_drifted,
    cut_at_borders,
    frozen,
    good,
    looped,
    noisy,
    rolling,
)

SEEDS = range(3)


@cache
def values(spoil: Callable[[Frames], Frames] | None, seed: int) -> dict[str, float]:
    """Of a video that went through H.264."""
    frames = good(seed)
    with TemporaryDirectory() as folder:
        path = Video(frames if spoil is None else spoil(frames), 16).save(Path(folder, "a.mp4"))
        clip = read_clip(path)
    return {name: found.value for name, found in measure(clip, Chunks()).items()}


def apart(name: str, spoil: Callable[[Frames], Frames]) -> tuple[float, float]:
    """The largest value of good videos, and the smallest of spoilt ones."""
    return (
        max(values(None, seed)[name] for seed in SEEDS),
        min(values(spoil, seed)[name] for seed in SEEDS),
    )


@pytest.mark.parametrize("spoil", [cut_at_borders, brightened_at_borders])
def test_borders_between_chunks_show(spoil: Callable[[Frames], Frames]) -> None:
    largest, smallest = apart("border", spoil)
    assert largest < 1.1
    assert smallest > 1.3


@pytest.mark.parametrize("spoil", [frozen, looped])
def test_copies_of_the_first_frames_show(spoil: Callable[[Frames], Frames]) -> None:
    largest, smallest = apart("copying", spoil)
    assert largest < 0.1
    assert smallest > 0.9


def test_other_spoilt_videos_do_not_pass_for_these() -> None:
    for seed in SEEDS:
        assert values(colour_drifted, seed)["border"] < 1.1
        assert values(noisy, seed)["border"] < 1.1
        assert values(looped, seed)["border"] < 1.1
        assert values(colour_drifted, seed)["copying"] < 0.1
        assert values(cut_at_borders, seed)["copying"] < 0.1


def test_flicker_and_motion_show() -> None:
    largest, smallest = apart("flicker", noisy)
    assert smallest > 1.5 * largest
    for seed in SEEDS:
        assert values(None, seed)["dynamic"] == 1
        still = values(frozen, seed)
        assert (still["dynamic"], still["border"]) == (0, 1)
        assert still["speed"] < 0.05 * values(None, seed)["speed"]


def test_drift_shows_where_the_content_stays() -> None:
    for seed in SEEDS:
        steady, drifted = (
            measure(Clip(frames, 16.0), Chunks())["drift"].value
            for frames in (rolling(seed), colour_drifted(rolling(seed)))
        )
        assert steady < 1
        assert drifted > 10


def test_the_speed_is_that_of_the_picture() -> None:
    """A texture without an occluder that moves by 2 pixels per frame of 64 rows, at 16 fps: half a height."""
    wide = np.tile(good(1)[0, :, :48], (1, 6, 1))
    frames = np.stack([wide[:, 2 * t : 2 * t + 96] for t in range(48)])
    speed = measure(Clip(frames, 16.0), Chunks())["speed"].value
    assert speed == pytest.approx(0.5, rel=0.15)


def test_larger_videos_are_shrunk(tmp_path: Path) -> None:
    big = np.repeat(np.repeat(good(0)[:24], 4, axis=1), 4, axis=2)
    assert read_clip(Video(big, 16).save(tmp_path / "big.mp4")).frames.shape == (24, 128, 192, 3)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    short = Video(good(0)[:20], 16).save(tmp_path / "short.mp4")
    with pytest.raises(ValueError, match="has 20 frames at 16 fps; 24 frames are needed"):
        read_clip(short)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"cannot read .*bad\.mp4"):
        read_clip(tmp_path / "bad.mp4")
    with pytest.raises(ValueError, match="no border between chunks"):
        measure(Clip(good(0)[:30], 16.0), Chunks(30, 30))
