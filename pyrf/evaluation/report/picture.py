"""Part "picture": how sharp clips are, and whether the borders of chunks show."""

from __future__ import annotations

from pyrf.evaluation.held_out import JUDGED_SECONDS, SHOWN, TitledVideo
from pyrf.evaluation.report.examined import Examined, Part, kept_frames
from pyrf.evaluation.report.measures import Measure
from pyrf.evaluation.report.pixels import Borders, gradient_energy

EVERY = 4
"""Frames from one whose gradients are measured to the next."""


def picture(examined: Examined, count: int) -> Part:
    """Sharpness and the borders of chunks, each as a ratio that is 1 at best.

    sharpness        gradient energy of the clips over that of true clips of the same prompts
    chunk borders    the 95th percentile of frame differences across borders over that inside chunks
    """
    world = examined.world
    num_frames = examined.frames_of(JUDGED_SECONDS)
    borders, own, true = Borders(), 0.0, 0.0
    rows: list[TitledVideo] = []
    model = examined.pipe.model
    starts = [model.start_of_chunk(n) for n in range(1, model.chunk_of_frame(num_frames))]
    for number, prompt, clip in examined.clips(world.held_out(count), JUDGED_SECONDS):
        borders.add(clip, starts)
        real = examined.true_clip(number, prompt, num_frames)
        own += gradient_energy(clip[::EVERY])
        true += gradient_energy(real[::EVERY])
        if len(rows) < SHOWN:
            rows += [(prompt.text, kept_frames(clip)), ("a true clip of it", kept_frames(real))]
    return Part(
        [
            Measure("sharpness", own / true, count, "ratio"),
            Measure("chunk borders", borders.ratio(), count, "ratio"),
        ],
        rows,
    )
