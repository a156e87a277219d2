"""Makes the moving picture of the first page: a flight of the model `valley` whose prompt changes four times.

    python benchmarks/demo_gif.py docs/img/demo.gif

Every second frame is shown, so that the file stays small.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pyrf
from pyrf.files import whole_file

REST = "a red balloon drifts right, the camera pans right slowly"
STORY = (
    f"hills at noon in summer, clear sky, {REST}",
    f"hills at dusk in summer, clear sky, {REST}",
    f"hills at night in winter, clear sky, {REST}",
    f"mountains at dawn in winter, clear sky, {REST}",
    f"the sea at noon, clear sky, {REST}",
)
"""Prompts of equal time."""
MAX_BYTES = 5_000_000
COLOURS = (256, 128, 64, 32)
"""Of each frame; fewer make a smaller file."""


def as_gif(frames: NDArray[np.uint8], fps: float, max_bytes: int = MAX_BYTES) -> bytes:
    """A GIF that loops, with as many colours as fit.

    Args:
        frames: [T, H, W, 3].

    Raises:
        ValueError: when even the fewest colours give a larger file.
    """
    for colours in COLOURS:
        first, *others = (
            Image.fromarray(frame).quantize(colours, dither=Image.Dither.NONE) for frame in frames
        )
        written = io.BytesIO()
        first.save(written, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
        if written.tell() <= max_bytes:
            return written.getvalue()
    raise ValueError(
        f"{len(frames)} frames take {written.tell():,} bytes with {colours} colours, "
        f"and {max_bytes:,} are the most; give fewer --seconds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the file, .gif")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="valley")
    options = parser.parse_args()
    pipe = pyrf.StreamingPipeline.from_pretrained(options.model)
    timeline = {f"{options.seconds * i / len(STORY):.2f}": prompt for i, prompt in enumerate(STORY) if i}
    video = pipe(STORY[0], round(options.seconds * pipe.fps), options.seed, timeline=timeline)
    with whole_file(options.out) as temporary:
        temporary.write_bytes(as_gif(video.frames[::2], pipe.fps / 2))


if __name__ == "__main__":
    main()
