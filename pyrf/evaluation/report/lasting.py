"""Parts "minute" and "ten-minutes": whether long streams still show what they began with."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
from numpy.typing import NDArray

from pyrf.evaluation.held_out import JUDGED_SECONDS, SHOWN, TitledVideo, tally
from pyrf.evaluation.report.attributes import shows_all
from pyrf.evaluation.report.examined import BATCH, Examined, Part
from pyrf.evaluation.report.measures import Measure, share, shares
from pyrf.evaluation.report.pixels import differences, is_blown_up, look, look_distances
from pyrf.evaluation.streams import batches
from pyrf.worlds.world import Frames, World

STILL = 0.02
"""Levels: a clip whose frames differ less on average does not move at all."""
MOVES = 0.1
"""Levels: a true clip whose frames differ more moves for everyone to see."""
PAIRS = 40
"""Pairs of scenes, at least, from which the distance of different looks is known."""
SHEET_FRAMES = 8
LOOKS = ("top", "whole")
"""Of a frame, as `look` has them."""


class Watched:
    """One long stream, of which only the ends are kept.

    Attributes:
        blew_up: whether a frame was flat or saturated, at any time.
        kept: frames at even distances, for a sheet.

    Args:
        num_frames: that it will have.
        window: frames of each end.
    """

    def __init__(self, num_frames: int, window: int) -> None:
        self.blew_up = False
        self.kept: list[Frames] = []
        self._shown = set(np.linspace(0, num_frames - 1, SHEET_FRAMES).astype(int).tolist())
        self._window, self._seen = window, 0
        self._first_look: NDArray[np.float64] | None = None
        self._last: deque[Frames] = deque(maxlen=window)

    def add(self, frames: Frames) -> None:
        """The next frames, [T, H, W, 3]."""
        for frame in frames:
            frame = frame.copy()  # a view would hold the chunk of all streams
            self.blew_up = self.blew_up or is_blown_up(frame)
            if self._seen in self._shown:
                self.kept.append(frame)
            self._seen += 1
            self._last.append(frame)
            if self._seen == self._window:
                self._first_look = look(np.stack(self._last))

    @property
    def end(self) -> Frames:
        """The last frames."""
        return np.stack(self._last)

    def drift(self) -> NDArray[np.float64]:
        """Distances of the looks of both ends, in levels, see `LOOKS`."""
        assert self._first_look is not None
        return look_distances(self._first_look, look(self.end))


def lasting(examined: Examined, count: int, seconds: float) -> Part:
    """What the last five seconds of streams show, and what became of the streams until there.

    frozen      share that does not move in the last five seconds, where a true clip of the prompt does
    blew up     share with a flat or saturated frame at any time
    drift       distance of the mean colours of the first and the last five seconds, the median; its bar is
                the tenth percentile of the same distance between two scenes of one prompt
    kept look   share of the streams that drift less than that
    """
    world, window = examined.world, examined.frames_of(JUDGED_SECONDS)
    prompts = world.held_out(count)
    num_frames = examined.frames_of(seconds)
    verdicts: list[dict[str, bool]] = []
    every, frozen, blew_up, drifts = [], [], [], []
    rows: list[TitledVideo] = []
    for seeds, part in batches(prompts, BATCH):
        watched = [Watched(num_frames, window) for _ in part]
        for chunk in examined.chunks(part, seeds, num_frames):
            for stream, frames in zip(watched, chunk):
                stream.add(frames)
        for number, prompt, stream in zip(seeds, part, watched):
            end = stream.end
            verdicts.append(world.judge(end, prompt))
            every.append(shows_all(verdicts[-1], prompt))
            frozen.append(is_frozen(end, examined.true_clip(number, prompt, world.fps)))
            blew_up.append(stream.blew_up)
            drifts.append(stream.drift())
            if len(rows) < SHOWN:
                rows.append((prompt.text, np.stack(stream.kept)))
    return Part(
        [
            *shares(tally(world, verdicts)),
            share("every", every),
            share("clips: frozen", frozen, at_most=0.0),
            share("clips: blew up", blew_up, at_most=0.0),
            *drift_measures(np.array(drifts), different_looks(world, max(count, PAIRS), window)),
        ],
        rows,
    )


def is_frozen(clip: Frames, true: Frames) -> bool:
    """Whether a clip does not move at all where a true one of the same prompt does."""
    return bool(differences(clip).mean() < STILL and differences(true).mean() > MOVES)


def different_looks(world: World, count: int, window: int) -> NDArray[np.float64]:
    """Distances of the looks of two scenes of one prompt, for `count` prompts: [count, 2], see `LOOKS`."""
    found = []
    for number, prompt in enumerate(world.held_out(count)):
        one, other = (
            world.scene_for(prompt, random.Random(f"{which} {number}")).render(0, window)
            for which in ("one", "other")
        )
        found.append(look_distances(look(one), look(other)))
    return np.array(found)


def drift_measures(drifts: NDArray[np.float64], others: NDArray[np.float64]) -> list[Measure]:
    """Drift and the share of kept looks.

    Args:
        drifts: of the streams, [N, 2].
        others: distances of different looks, [M, 2].
    """
    measures = []
    for column, place in enumerate(LOOKS):
        bar = float(np.percentile(others[:, column], 10))
        own = drifts[:, column]
        median = float(np.median(own))
        measures.append(Measure(f"drift: {place}", median, len(own), "levels", at_most=bar))
        measures.append(share(f"kept look: {place}", (own < bar).tolist()))
    return measures
