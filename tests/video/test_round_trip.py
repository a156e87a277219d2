"""Whatever size and rate frames have, what is written is read back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pyrf.video import Video, open_writer, read_frames
from pyrf.video.encoder import Encoder
from pyrf.video.encoding import LIVE_MP4
from pyrf.video.writer import Frames
from tests.support.video_files import decode

SIDES = st.integers(2, 40).map(lambda half: 2 * half)
RATES = st.sampled_from([1.0, 7.5, 16.0, 24000 / 1001, 30.0])


def clip(count: int, height: int, width: int) -> Frames:
    """Flat frames of growing brightness, so that scaling, codecs and palettes keep what tells them apart."""
    levels = np.linspace(40, 200, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


@settings(max_examples=8)
@given(kind=st.sampled_from([".mp4", ".gif"]), count=st.integers(1, 9), height=SIDES, width=SIDES, fps=RATES)
def test_videos(kind: str, count: int, height: int, width: int, fps: float) -> None:
    frames = clip(count, height, width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{kind}"
        with open_writer(path, fps) as sink:
            for frame in frames:
                sink.write(frame[None])
            assert sink.num_frames == count
        assert np.abs(decode(path).astype(int) - frames).max() <= 12
        with av.open(str(path)) as container:
            # A GIF counts in hundredths of a second.
            precision = 1e-3 if kind == ".mp4" else fps / 50
            assert float(container.streams.video[0].average_rate or fps) == pytest.approx(fps, rel=precision)
        assert read_frames(path, height=height, width=width, fps=fps).shape[1:] == (height, width, 3)


@settings(max_examples=8)
@given(count=st.integers(1, 5), height=st.integers(1, 40), width=st.integers(1, 40), fps=RATES)
def test_folders_keep_every_bit(count: int, height: int, width: int, fps: float) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Video(frames, fps).save(f"{folder}/frames/")
        back = [np.asarray(Image.open(picture)) for picture in sorted(path.iterdir())]
    assert np.array_equal(np.stack(back), frames)


@settings(max_examples=5)
@given(count=st.integers(1, 9), height=SIDES, width=SIDES, fps=RATES)
def test_a_live_video_can_be_read_as_far_as_it_went(count: int, height: int, width: int, fps: float) -> None:
    frames = clip(count, height, width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        with path.open("wb") as file:
            encoder = Encoder(file, LIVE_MP4, height=height, width=width, fps=fps)
            for i, frame in enumerate(frames):
                encoder.append(frame, is_key=i == 0)
            encoder.finish()
        assert np.abs(decode(path).astype(int) - frames).max() <= 12
