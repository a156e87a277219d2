"""An image of any kind as one frame: a file, an image of Pillow, or an array."""

from __future__ import annotations

from os import PathLike as OsPathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from pyrf.config import Fit
from pyrf.video.fitting import check_fit, fitted
from pyrf.video.levels import as_levels
from pyrf.video.reader import read_frames
from pyrf.video.writer import Frames

if TYPE_CHECKING:
    from PIL import Image

Picture: TypeAlias = Union[Frames, str, OsPathLike[str], "Image.Image"]
"""An array [H, W, 3] of uint8, uint16 or floats of 0..1, a file, or an image of Pillow."""


def fitted_picture(picture: Picture, *, height: int, width: int, fit: Fit) -> Frames:
    """A picture of any kind as a frame, uint8 [height, width, 3].

    Files and images of Pillow come as they are meant: upright by their EXIF, in sRGB, transparent ones over
    white.

    Raises:
        ValueError: when it has the wrong kind or values, cannot be read, holds several frames, or has other
            sides and `fit` is "refuse".
    """
    from PIL import Image

    check_fit(fit)
    if isinstance(picture, str | OsPathLike):
        frames = read_frames(picture, height=height, width=width, fps=1000.0, limit=2, fit=fit)
        if len(frames) > 1:
            raise ValueError(
                f"{picture} holds several frames; give read_frames({str(picture)!r}, ...) as video="
            )
        return frames[0]
    if isinstance(picture, Image.Image):
        from pyrf.video.stills import upright_rgb

        return fitted(upright_rgb(picture, Path("image")), 1.0, height, width, fit)
    levels = as_levels(np.asarray(picture), "image")
    if levels.ndim != 3 or levels.shape[-1] != 3 or not levels.size:
        raise ValueError(f"image must be [H, W, 3], got {list(levels.shape)}")
    if levels.shape[:2] == (height, width):
        return levels
    return fitted(Image.fromarray(np.ascontiguousarray(levels)), 1.0, height, width, fit)
