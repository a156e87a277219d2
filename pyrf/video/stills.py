"""Pictures of Pillow as upright RGB in sRGB levels: deep ones, transparent ones, with profiles, animated."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pyrf.video.levels import as_levels, integers_as_levels

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white, as on a page, for which cut-out pictures are made."""

_ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
"""Formats whose several frames are a video; those of others are pages, sizes or thumbnails."""
_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose pictures of 32-bit integers hold 16 bits: Pillow has no other place for them."""
_SHORTEST_S = 0.02
_DEFAULT_S = 0.1
"""A GIF of shorter frames than the first is shown at this pace, as browsers do."""


def is_animation(image: Image.Image) -> bool:
    """Whether a file shows one frame after the other."""
    return image.format in _ANIMATIONS and getattr(image, "n_frames", 1) > 1


def animation_frames(image: Image.Image) -> Iterator[tuple[Image.Image, float, float]]:
    """Frames as they are shown, whole, each with the seconds at which it begins and ends."""
    start = 0.0
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        frame = image.copy()
        frame.format = image.format
        duration = float(image.info.get("duration") or 0) / 1000
        if duration <= 0 or (image.format == "GIF" and duration < _SHORTEST_S):
            duration = _DEFAULT_S
        yield frame, start, start + duration
        start += duration


def upright_rgb(image: Image.Image, path: Path) -> Image.Image:
    """A picture as its maker meant it: turned by EXIF, in 8 bits, in sRGB, over `BACKGROUND`.

    Raises:
        ValueError: when nothing says what its numbers mean.
    """
    kind, profile = image.format, image.info.get("icc_profile")
    image = _in_eight_bits(ImageOps.exif_transpose(image), kind)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    elif image.mode in ("P", "1", "YCbCr", "HSV"):
        image = image.convert("RGB")
    colours = image.convert("RGB") if alpha is not None else image
    if image.mode == "LAB" or profile:
        colours = _in_srgb(colours, profile, path)
    colours = colours.convert("RGB")
    if alpha is None:
        return colours
    result = Image.new("RGB", colours.size, BACKGROUND)
    result.paste(colours, mask=alpha)
    return result


def _in_eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    what = "its picture"
    if image.mode == "F":
        return Image.fromarray(as_levels(np.asarray(image), what))
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    pixels = np.asarray(image)
    transparent = image.info.get("transparency")
    if image.mode == "I" and kind not in _SIXTEEN_BITS:
        levels = integers_as_levels(pixels, what)
    else:
        levels = as_levels(pixels.astype(np.uint16), what)
    if not isinstance(transparent, int):
        return Image.fromarray(levels)
    seen = np.where(pixels == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(levels), Image.fromarray(seen)))


def _in_srgb(image: Image.Image, profile: bytes | None, path: Path) -> Image.Image:
    """Colours of a profile in sRGB; where the profile is damaged or of other colours, as they are."""
    try:
        from PIL import ImageCms

        lab = image.mode == "LAB"
        made = ImageCms.createProfile("LAB") if lab else io.BytesIO(profile or b"")
        source = ImageCms.ImageCmsProfile(made)
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        if image.mode == "RGB" and source.profile.xcolor_space.strip() == "GRAY":
            image = image.convert("L")
        found = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
        assert found is not None  # only in place there is none
        return found
    except (ImportError, OSError, ValueError, TypeError) as error:
        if image.mode == "LAB":
            raise ValueError(f"its Lab colours cannot be converted ({error})") from error
        warnings.warn(f"{path}: its colour profile cannot be used ({error}); colours are sRGB", stacklevel=2)
        return image
