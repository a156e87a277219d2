"""Videos decoded by PyAV: RGB pictures with their times, turned and shaped as the file says."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pyrf.video.filters import to_rgb
from pyrf.video.stills import BACKGROUND

MAX_PIXELS = 178_956_970
"""Of a picture or a frame, as many as Pillow opens; larger ones would take gigabytes."""

_HDR = {16: "PQ", 18: "HLG"}
_BT2020 = 9


class Shown(NamedTuple):
    """A decoded frame, not yet converted, and the seconds from the video's begin to its own begin and end."""

    frame: Any
    start: float
    end: float


class DecodedVideo:
    """The frames of a video file.

    Args:
        path: the file, or what to call it where `container` is given.
        fps: frames per second of a video that does not say its own.
        container: opened by PyAV, where it is no file; it is closed with this.

    Raises:
        ValueError: when there is no video stream, or it is one that would be shown wrongly.
        av.error.FFmpegError: when it cannot be decoded.
    """

    def __init__(self, path: Path | str, fps: float, container: Any = None) -> None:
        import av

        self._path = path
        self._container: Any = av.open(str(path)) if container is None else container
        videos = self._container.streams.video
        if not videos:
            self.close()
            raise ValueError("it has no video stream")
        self._stream = videos[0]
        codec = self._stream.codec_context
        if isinstance(path, Path) and _is_heif(path):
            self.close()
            raise ValueError("it is a HEIC or HEIF picture; save it as JPEG or PNG")
        self._check_size(codec.width, codec.height)
        self._rate = float(self._stream.average_rate or fps)
        aspect = self._stream.sample_aspect_ratio or codec.sample_aspect_ratio
        self.pixel_aspect = float(aspect) if aspect else 1.0
        self._filters: dict[Any, Any] = {}
        self._warned = False

    def __iter__(self) -> Iterator[Shown]:
        """Frames in the order of showing; those without a time come at the video's rate."""
        first: float | None = None
        for index, frame in enumerate(self._container.decode(self._stream)):
            self._check_size(frame.width, frame.height)
            if frame.time is not None and first is None:
                first = frame.time - index / self._rate
            start = index / self._rate if frame.time is None or first is None else frame.time - first
            yield Shown(frame, start, start + self._duration(frame))

    def picture(self, frame: Any) -> tuple[Image.Image, float]:
        """A frame as it is meant to be seen, and the width of its pixels over their height."""
        if "f32" in frame.format.name or "f16" in frame.format.name:
            raise ValueError(
                f"it holds floats ({frame.format.name}) of unknown range; save it in 8 or 16 bits"
            )
        self._warn_of_hdr(frame)
        alpha = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
        tags = int(frame.colorspace), int(frame.color_range)
        key = frame.format.name, frame.width, frame.height, *tags
        if key not in self._filters:
            self._filters = {key: to_rgb(frame, alpha=alpha)}
        graph = self._filters[key]
        graph.push(frame)
        pixels = graph.pull().to_ndarray()
        picture = Image.fromarray(pixels)
        if alpha:
            colours = Image.new("RGB", picture.size, BACKGROUND)
            colours.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
            picture = colours
        return _turned(picture, self.pixel_aspect, _display_matrix(frame))

    def close(self) -> None:
        self._container.close()

    def _duration(self, frame: Any) -> float:
        """Seconds that a frame is shown."""
        units = getattr(frame, "duration", None)
        if units and frame.time_base:
            return float(units * frame.time_base)
        return 1 / self._rate

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"its frames have {width} x {height} pixels, more than {MAX_PIXELS}; scale it first"
            )

    def _warn_of_hdr(self, frame: Any) -> None:
        codec = self._stream.codec_context
        transfer = _HDR.get(int(codec.color_trc or 0))
        if self._warned or not (transfer or int(codec.color_primaries or 0) == _BT2020):
            return
        self._warned = True
        warnings.warn(
            f"{self._path}: its colours are wider than those of usual screens ({transfer or 'BT.2020'}) "
            "and are not mapped, so they look pale; convert it to SDR (BT.709) first",
            stacklevel=4,
        )


def display_size(stream: Any) -> tuple[int, int]:
    """Height and width of a video stream's frames as shown with square pixels."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    height, width = stream.height, round(stream.width * float(aspect or 1))
    frame = next(iter(stream.container.decode(stream)), None)
    turns = frame is not None and _turns_sideways(_display_matrix(frame))
    return (width, height) if turns else (height, width)


def _display_matrix(frame: Any) -> tuple[float, float, float, float]:
    """How x and y of a frame go into x and y of the screen: xx, xy, yx, yy."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            xx, xy, _, yx, yy, *_ = struct.unpack("<9i", bytes(data)[:36])
            return xx / 65536, xy / 65536, yx / 65536, yy / 65536
    return 1.0, 0.0, 0.0, 1.0


def _turns_sideways(matrix: tuple[float, float, float, float]) -> bool:
    xx, xy, yx, yy = matrix
    return abs(xy) + abs(yx) > abs(xx) + abs(yy)


def _turned(
    picture: Image.Image, aspect: float, matrix: tuple[float, float, float, float]
) -> tuple[Image.Image, float]:
    """By the nearest quarter, and mirrored, as phones note it; other angles are the nearest of these."""
    across, down = matrix[0], matrix[3]
    if _turns_sideways(matrix):
        picture, aspect = picture.transpose(Image.Transpose.TRANSPOSE), 1 / aspect
        across, down = matrix[2], matrix[1]
    if across < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if down < 0:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return picture, aspect


def _is_heif(path: Path) -> bool:
    """A HEIC photo is cut into tiles, of which FFmpeg's first stream is only one."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"heim", b"heis", b"hevc")
