"""Videos come as their files mean them: turned, shaped, timed and coloured by their tags."""

from __future__ import annotations

import struct
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pyrf.evaluation.scores.score_file import video_size
from pyrf.video import Video, read_frames
from pyrf.video.decoded import MAX_PIXELS, DecodedVideo
from pyrf.video.filters import _graph
from pyrf.video.writer import Frames

H, W = 64, 96
ONE = 65536


def encode(
    path: Path,
    frames: Frames,
    *,
    times: list[int] | None = None,
    rate: int = 16,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    convert: str = "out_color_matrix=bt709:out_range=tv",
    tags: dict[str, int] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """A video of FFmpeg's own making, converted and tagged as a test says."""
    height, width = frames.shape[1:3]
    source = {"width": width, "height": height, "format": "rgb24", "time_base": Fraction(1, rate)}
    graph = _graph(source, ("scale", f"in_range=pc:{convert}:flags=accurate_rnd"), ("format", pixel_format))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            codec, rate=rate, options={"crf": "10"} if codec == "libx264" else {}
        )
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = (times or range(len(frames)))[index], Fraction(1, rate)
            graph.push(picture)
            made = graph.pull()
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


def colours(*values: tuple[int, int, int], height: int = H, width: int = W) -> Frames:
    frames = np.zeros((len(values), height, width, 3), np.uint8)
    frames[:] = np.array(values, np.uint8)[:, None, None]
    return frames


SIX = ((220, 30, 30), (0, 200, 0), (30, 60, 220), (255, 255, 255), (0, 0, 0), (120, 130, 140))
TAGS = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}


def largest(path: Path, frames: Frames) -> int:
    height, width = frames.shape[1:3]
    found = read_frames(path, height=height, width=width, fps=16)
    assert found.shape == frames.shape
    return int(np.abs(found.astype(int) - frames)[:, 8:-8, 8:-8].max())


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "tag"), [("bt709", 1), ("bt601", 6), ("bt601", 5), ("bt2020", 9)])
def test_colours_are_those_of_the_tags(
    tmp_path: Path, matrix: str, tag: int, full: bool, pixel_format: str
) -> None:
    path = encode(
        tmp_path / "a.mp4",
        colours(*SIX),
        pixel_format=pixel_format,
        convert=f"out_color_matrix={matrix}:out_range={'pc' if full else 'tv'}",
        tags={**TAGS, "colorspace": tag, "color_range": 2 if full else 1},
    )
    assert largest(path, colours(*SIX)) <= 2


@pytest.mark.parametrize(("height", "matrix"), [(480, "bt601"), (720, "bt709")])
def test_colours_without_tags_are_those_of_their_size(tmp_path: Path, height: int, matrix: str) -> None:
    frames = colours(*SIX[:3], height=height)
    path = encode(tmp_path / "a.mp4", frames, convert=f"out_color_matrix={matrix}:out_range=tv")
    assert largest(path, frames) <= 2


def test_rgb_inside(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.mkv", colours(*SIX), pixel_format="bgr0", codec="ffv1", convert="out_range=pc"
    )
    assert largest(path, colours(*SIX)) <= 1


def test_full_range_of_old(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.avi",
        colours(*SIX),
        codec="mjpeg",
        pixel_format="yuvj444p",
        convert="out_color_matrix=bt601:out_range=pc",
    )
    assert largest(path, colours(*SIX)) <= 3


def test_wide_colours_are_told(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.mp4",
        colours(*SIX[:2]),
        pixel_format="yuv420p10le",
        convert="out_color_matrix=bt2020:out_range=tv",
        tags={"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1},
    )
    with pytest.warns(
        UserWarning, match=r"a\.mp4: its colours are wider .* \(PQ\) and are not mapped"
    ) as caught:
        read_frames(path, height=H, width=W, fps=16)
    assert len(caught) == 1


def test_usual_colours_are_not_told(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", colours(*SIX), tags=TAGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_frames(path, height=H, width=W, fps=16)


def turned(path: Path, matrix: tuple[int, ...]) -> Path:
    """Write another display matrix into an MP4."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


# How a phone notes it -> what undoes it.
MATRICES: dict[str, tuple[tuple[int, ...], Any]] = {
    "as it is": ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda f: f),
    "a quarter to the right": ((0, ONE, 0, -ONE, 0, 0, H << 16, 0, 1 << 30), lambda f: np.rot90(f, -1)),
    "half": ((-ONE, 0, 0, 0, -ONE, 0, W << 16, H << 16, 1 << 30), lambda f: np.rot90(f, 2)),
    "a quarter to the left": ((0, -ONE, 0, ONE, 0, 0, 0, W << 16, 1 << 30), lambda f: np.rot90(f, 1)),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, W << 16, 0, 1 << 30), lambda f: f[:, ::-1]),
    "upside down": ((ONE, 0, 0, 0, -ONE, 0, 0, H << 16, 1 << 30), lambda f: f[::-1]),
    "mirrored and turned": ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda f: f.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_videos_are_turned_as_phones_note(tmp_path: Path, name: str) -> None:
    frames = np.full((5, H, W, 3), 20, np.uint8)
    frames[:, : H // 2, : W // 2] = 230
    matrix, undo = MATRICES[name]
    path = turned(Video(frames, 16).save(tmp_path / "a.mp4"), matrix)
    expected = undo(frames[0])
    height, width = expected.shape[:2]
    found = read_frames(path, height=height, width=width, fps=16)
    assert np.abs(found[-1].astype(int) - expected).mean() < 4
    assert video_size(path) == (height, width)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    """A disc stays round, whichever side its pixels are longer on."""
    y, x = np.mgrid[:48, :64]
    narrow = ((x - 32) / 10) ** 2 + ((y - 24) / 20) ** 2 < 1
    frames = np.repeat(np.where(narrow[..., None], 255, 0).astype(np.uint8)[None].repeat(3, 3), 4, axis=0)
    path = encode(tmp_path / "a.mp4", frames, aspect=Fraction(2, 1))
    assert video_size(path) == (48, 128)
    shown = read_frames(path, height=48, width=128, fps=16)[-1][..., 0] > 128
    assert abs(int(shown.any(0).sum()) - int(shown.any(1).sum())) <= 2
    square = read_frames(path, height=48, width=48, fps=16)[-1][..., 0] > 128
    assert abs(int(square.any(0).sum()) - int(square.any(1).sum())) <= 2


def brightness(path: Path, fps: float, **options: Any) -> list[int]:
    found = read_frames(path, height=H, width=W, fps=fps, **options)
    return [round(float(frame.mean()) / 40) for frame in found]


def test_a_frame_is_shown_until_the_next(tmp_path: Path) -> None:
    """Variable frame rate: frames at 0, 1/16, 1 and 1.5 seconds, and the last one for a sixteenth."""
    frames = colours(*[(40 * i,) * 3 for i in (1, 2, 3, 4)])
    path = encode(tmp_path / "a.mkv", frames, times=[0, 1, 16, 24], tags=TAGS)
    assert brightness(path, 16) == [1] + 15 * [2] + 8 * [3] + [4]
    assert brightness(path, 4) == [1, 2, 2, 2, 3, 3, 4]
    assert brightness(path, 16, limit=10) == [2] + 8 * [3] + [4]


def test_a_clock_that_jumps_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", colours((0, 0, 0), (9, 9, 9)), times=[0, 16 * 7200], tags=TAGS)
    with pytest.raises(ValueError, match=r"a\.mkv as an image or video: its clock jumps by more than 3600"):
        read_frames(path, height=H, width=W, fps=16)


def test_transparent_video_shows_white(tmp_path: Path) -> None:
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[:, W // 2 :] = (200, 0, 0, 255)
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream: Any = container.add_stream("png", rate=16)
        stream.height, stream.width, stream.pix_fmt = H, W, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    found = read_frames(tmp_path / "a.mov", height=H, width=W, fps=16)[0]
    assert tuple(found[0, 0]) == (255, 255, 255)
    assert tuple(found[0, -1]) == (200, 0, 0)


def test_a_video_without_a_frame(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match="cannot read"):
        read_frames(tmp_path / "a.mkv", height=H, width=W, fps=16)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        sound: NDArray[np.int16] = np.zeros((1, 800), np.int16)
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="it has no video stream"):
        read_frames(tmp_path / "a.wav", height=H, width=W, fps=16)


def test_a_heic_picture_is_named(tmp_path: Path) -> None:
    """FFmpeg would show the first of its tiles alone."""
    path = Video(colours(*SIX), 16).save(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    data[8:12] = b"heic"
    (tmp_path / "a.heic").write_bytes(data)
    with pytest.raises(ValueError, match="it is a HEIC or HEIF picture; save it as JPEG or PNG"):
        read_frames(tmp_path / "a.heic", height=H, width=W, fps=16)


def test_frames_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Video(colours(*SIX), 16).save(tmp_path / "a.mp4")
    assert MAX_PIXELS > 100_000_000
    monkeypatch.setattr("pyrf.video.decoded.MAX_PIXELS", H * W - 1)
    with pytest.raises(ValueError, match="its frames have 96 x 64 pixels, more than 6143; scale it first"):
        read_frames(path, height=H, width=W, fps=16)
    with pytest.raises(ValueError, match="more than 6143"):
        DecodedVideo(path, 16)
