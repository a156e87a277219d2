"""Pictures of clips, to look at while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pyrf.files import whole_file


def contact_sheet(rows: list[tuple[str, NDArray[np.uint8]]], path: Path, columns: int = 8) -> None:
    """One row a clip: its title and `columns` frames, spread evenly; clips are uint8 [T, H, W, 3]."""
    strips = []
    for title, clip in rows:
        shown = clip[np.linspace(0, len(clip) - 1, columns).astype(int)]
        strip = Image.fromarray(np.concatenate(list(shown), axis=1))
        strip = strip.resize((int(strip.width * 1.8), int(strip.height * 1.8)), Image.Resampling.BICUBIC)
        image = Image.new("RGB", (strip.width, strip.height + 16), "white")
        image.paste(strip, (0, 16))
        ImageDraw.Draw(image).text((4, 2), title, fill="black")
        strips.append(np.asarray(image))
    with whole_file(path) as temporary:
        Image.fromarray(np.concatenate(strips)).save(temporary)
