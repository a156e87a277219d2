"""Frames out of files: an image or a video, fitted to a size and a rate."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyrf.config import Fit
from pyrf.files import expanded
from pyrf.video.fitting import check_fit, fitted
from pyrf.video.writer import Frames, PathLike

if TYPE_CHECKING:
    from PIL import Image

    from pyrf.video.decoded import Shown

    Picture = tuple[Image.Image, float]
    """RGB, and the width of its pixels over their height."""

ROUNDING_S = 0.006
"""By how much a frame may be late: files count in milliseconds, and GIFs in hundredths of a second."""
MAX_GAP_S = 3600.0
"""How long a frame may stand; a video whose clock jumps further is damaged."""


def read_frames(
    path: PathLike, *, height: int, width: int, fps: float, limit: int | None = None, fit: Fit = "crop"
) -> Frames:
    """Read an image (one frame) or a video, fitted to a size.

    Pictures come as their files mean them: upright, with square pixels, in sRGB, 16-bit ones and floats of
    0..1 scaled to 8 bits, transparent ones over white. A frame is shown until the next one begins.

    Args:
        path: a picture, an animation (GIF, WebP, APNG, AVIF) or a video; `~` is the home folder.
        fps: frames per second of the result; a video of another rate is resampled.
        limit: keep only this many frames, the last ones.
        fit: what becomes of pictures of other sides, see `pyrf.config.Fit`.

    Returns:
        uint8 [T, height, width, 3].

    Raises:
        ValueError: when the file is missing, holds no picture that can be decoded, or numbers whose meaning
            nothing tells, or when `fit` refuses its size.
    """
    check_fit(fit)
    place = existing(path)
    frames: deque[Frames] = deque()
    with refusals(path), opened(place, fps) as video:
        for frame, count in _last(at_rate(video.shown, fps), limit):
            frames.extend([fitted(*video.picture(frame), height, width, fit)] * count)
    if not frames:
        raise ValueError(f"cannot read {path}: it holds no frames")
    return np.stack(list(frames)[-limit:] if limit else frames)


class _Opened(NamedTuple):
    """Frames of a file that are not converted yet, and what converts one."""

    shown: Iterable[Shown]
    picture: Callable[[Any], Picture]


@contextmanager
def opened(path: Path, fps: float) -> Iterator[_Opened]:
    from PIL import Image, UnidentifiedImageError

    from pyrf.video.decoded import DecodedVideo, Shown
    from pyrf.video.stills import animation_frames, is_animation, upright_rgb

    def picture(frame: Image.Image) -> Picture:
        return upright_rgb(frame, path), 1.0

    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        video = DecodedVideo(path, fps)
        try:
            yield _Opened(video, video.picture)
        finally:
            video.close()
        return
    with image:
        if is_animation(image):
            yield _Opened((Shown(*frame) for frame in animation_frames(image)), picture)
        else:
            yield _Opened([Shown(image, 0.0, 1 / fps)], picture)


def at_rate(shown: Iterable[Shown], fps: float) -> Iterator[tuple[Any, int]]:
    """Frames that are seen at moments 0, 1 / fps, ..., each with the number of moments.

    Raises:
        ValueError: when a frame stands for longer than MAX_GAP_S.
    """
    count = 0
    last: Shown | None = None
    late = min(ROUNDING_S, 0.25 / fps)

    def until(seconds: float) -> int:
        if not last or not last.start - MAX_GAP_S <= seconds <= max(last.start, 0) + MAX_GAP_S:
            raise ValueError(f"its clock jumps by more than {MAX_GAP_S:g} seconds")
        return max(0, math.ceil((seconds - late) * fps) - count)

    for one in shown:
        if last is not None and (times := until(one.start)):
            yield last.frame, times
            count += times
        last = one
    if last is not None and (times := max(until(last.end), 0 if count else 1)):
        yield last.frame, times


def _last(frames: Iterator[tuple[Any, int]], limit: int | None) -> Iterator[tuple[Any, int]]:
    """Of frames with their counts those of the last `limit`, so that no other is converted."""
    if limit is None:
        yield from frames
        return
    kept: deque[tuple[Any, int]] = deque()
    total = 0
    for frame, count in frames:
        kept.append((frame, min(count, limit)))
        total += min(count, limit)
        while total - kept[0][1] >= limit:
            total -= kept.popleft()[1]
    yield from kept


def existing(path: PathLike) -> Path:
    """A file's path.

    Raises:
        ValueError: when there is no such file, saying what there is.
    """
    if "://" in str(path):
        raise ValueError(f"cannot read {path}: it is an address; fetch what is there and give the file")
    place = Path(expanded(path))
    if place.is_dir():
        raise ValueError(f"cannot read {path}: it is a folder; give a picture or a video in it")
    if not place.is_file():
        raise ValueError(f"cannot read {path}: there is no such file")
    return place


@contextmanager
def refusals(path: PathLike) -> Iterator[None]:
    """All that decoders raise on damaged files, as a ValueError of one line."""
    import av
    from PIL import Image

    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"cannot read {path}: it has too many pixels ({error}); scale it first") from error
    except (
        av.error.FFmpegError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        SyntaxError,
        struct.error,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split()) or "it is damaged"
        raise ValueError(f"cannot read {path} as an image or video: {reason}") from error
