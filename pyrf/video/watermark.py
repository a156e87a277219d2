"""A visible mark in the lower right corner of every frame: drawn once for a size of frames, then blended."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrf.video.metadata import Metadata
from pyrf.video.reader import existing, refusals
from pyrf.video.writer import Frames, PathLike

if TYPE_CHECKING:
    from PIL import Image, ImageFont

PICTURES = (".png", ".webp", ".jpg", ".jpeg")
"""What ends so is a file; all else is text."""
MAX_CHARACTERS = 64
MAX_PIXELS = 4_000_000
"""Of a picture that is a mark."""
OPACITY = 0.7
TEXT_HEIGHT, PICTURE_HEIGHT = 1 / 20, 1 / 8
"""Of a frame's height."""
SMALLEST_TEXT = 12
"""Pixels; smaller letters cannot be read."""
MAX_WIDTH = 0.9
"""Of a frame's width; a wider mark is shrunk."""
MARGIN = 1 / 40
"""Of a frame's height, to the right and below."""
SIZES = 16
"""Of frames, whose drawn marks are kept."""


class _Drawn(NamedTuple):
    """A mark for frames of one size.

    Attributes:
        box: rows and columns of a frame.
        colours: times opacity, plus half, uint16 [h, w, 3].
        clear: what stays of a frame, of 255, uint16 [h, w, 1].
    """

    box: tuple[slice, slice]
    colours: NDArray[np.uint16]
    clear: NDArray[np.uint16]


class Watermark:
    """A text or a picture that all frames show in their lower right corner.

    Letters are white with a dark edge, so that they can be read on any ground. The mark is opaque by 70 %; a
    picture's own transparency counts too.

    Args:
        mark: a text of up to 64 characters of ASCII, or a path that ends in .png, .webp, .jpg or .jpeg.

    Attributes:
        name: the text, or the file's name.

    Raises:
        ValueError: when the file cannot be read or is too large, or the font does not have a character.
    """

    def __init__(self, mark: PathLike) -> None:
        text = os.fspath(mark)
        self._picture: Image.Image | None = None
        if text.lower().endswith(PICTURES):
            self.name = Path(text).name
            self._picture = _read(text)
        else:
            self.name = text.strip()
            _check_text(self.name)
        self._drawn = lru_cache(SIZES)(self._draw)

    def __repr__(self) -> str:
        return f"Watermark({self.name!r})"

    def told_in(self, metadata: Metadata) -> dict[str, Any]:
        """What a file says of how it was made, and of this mark."""
        return {**metadata, "watermark": self.name}

    def on(self, frames: Frames) -> Frames:
        """Frames with the mark, as a copy.

        Args:
            frames: uint8 [..., H, W, 3].
        """
        drawn = self._drawn(*frames.shape[-3:-1])
        marked = frames.copy()
        part = marked[(..., *drawn.box, slice(None))]
        part[...] = (part * drawn.clear + drawn.colours) // 255
        return marked

    def _draw(self, height: int, width: int) -> _Drawn:

        if self._picture is None:
            picture = _written(self.name, max(SMALLEST_TEXT, round(TEXT_HEIGHT * height)))
        else:
            picture = _scaled(self._picture, PICTURE_HEIGHT * height / self._picture.height)
        margin = round(MARGIN * height)
        most = max(1, round(MAX_WIDTH * width)), max(1, height - 2 * margin)
        shrunk = min(1.0, most[0] / picture.width, most[1] / picture.height)
        if shrunk < 1:
            picture = _scaled(picture, shrunk)
        assert picture.mode == "RGBA"
        pixels = np.asarray(picture, dtype=np.uint16)
        opaque = (pixels[..., 3:] * OPACITY).round().astype(np.uint16)
        bottom, right = height - margin, width - min(margin, width - picture.width)
        box = slice(bottom - picture.height, bottom), slice(right - picture.width, right)
        return _Drawn(box, pixels[..., :3] * opaque + np.uint16(127), np.uint16(255) - opaque)


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    from PIL import Image

    size = tuple(max(1, round(factor * side)) for side in picture.size)
    return picture.resize(
        (size[0], size[1]), Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    )


def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ValueError("Pillow cannot draw text here, as it was built without FreeType; give a picture")
    return font


def _check_text(text: str) -> None:
    if not text or len(text) > MAX_CHARACTERS or not text.isprintable():
        raise ValueError(
            f"a watermark is a line of 1..{MAX_CHARACTERS} characters, or a file {', '.join(PICTURES)}; "
            f"got {text!r:.100}"
        )
    font = _font(24)
    unknown = bytes(font.getmask("\uffff"))
    for character in text:
        if not character.isspace() and bytes(font.getmask(character)) == unknown:
            raise ValueError(f"the font of watermarks has no {character!r}; give a picture of the text")


def _written(text: str, size: int) -> Image.Image:
    """White letters with a dark edge, as tight as they are."""
    from PIL import Image, ImageDraw

    font, edge = _font(size), max(1, round(size / 12))
    left, top, right, bottom = (round(side) for side in font.getbbox(text, stroke_width=edge))
    picture = Image.new("RGBA", (right - left, bottom - top), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((-left, -top), text, "white", font, stroke_width=edge, stroke_fill=(0, 0, 0))
    return picture


def _read(text: str) -> Image.Image:
    from PIL import Image

    path = existing(text)
    with refusals(text), Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"a watermark has {MAX_PIXELS} pixels at most, got {image.width} x {image.height}"
            )
        return image.convert("RGBA")
