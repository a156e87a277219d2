"""A picture made as large as a stream's frames: cropped, padded, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyrf.config import FITS, Fit
from pyrf.video.writer import Frames

if TYPE_CHECKING:
    from PIL import Image


def check_fit(fit: str) -> None:
    """Refuse a way of fitting that does not exist.

    Raises:
        ValueError: naming those that do.
    """
    if fit not in FITS:
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")


def fitted(picture: Image.Image, pixel_aspect: float, height: int, width: int, fit: Fit) -> Frames:
    """A picture as a frame, uint8 [height, width, 3].

    Args:
        picture: RGB.
        pixel_aspect: the width of its pixels over their height.
        height, width: of the frame in pixels.

    Raises:
        ValueError: when the sides are others and `fit` is "refuse".
    """
    from PIL import Image

    if fit == "refuse" and (picture.size != (width, height) or pixel_aspect != 1):
        shape = f"{picture.height} x {picture.width}" + ("" if pixel_aspect == 1 else ", of oblong pixels")
        raise ValueError(
            f"the picture must be {height} x {width}, got {shape}; scale it first, or let it be fitted by "
            "crop or pad"
        )
    if fit == "pad":
        return _padded(picture, pixel_aspect, height, width)
    wanted = width / height / pixel_aspect
    across, down = float(picture.width), float(picture.height)
    if picture.width / picture.height >= wanted:
        across = wanted * picture.height if picture.width / picture.height != wanted else across
    else:
        down = picture.width / wanted
    left, top = (picture.width - across) * 0.5, (picture.height - down) * 0.5
    box = (left, top, left + across, top + down)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, box=box))


def _padded(picture: Image.Image, pixel_aspect: float, height: int, width: int) -> Frames:
    from PIL import Image

    scale = min(width / (picture.width * pixel_aspect), height / picture.height)
    inner = (
        min(width, max(1, round(picture.width * pixel_aspect * scale))),
        min(height, max(1, round(picture.height * scale))),
    )
    frame = Image.new("RGB", (width, height))
    corner = (width - inner[0]) // 2, (height - inner[1]) // 2
    frame.paste(picture.resize(inner, Image.Resampling.LANCZOS), corner)
    return np.asarray(frame)
