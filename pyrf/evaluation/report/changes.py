"""Part "changes": whether a stream follows when one attribute of its prompt is changed."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from pyrf.evaluation.held_out import SHOWN, TitledVideo
from pyrf.evaluation.report.examined import BATCH, Examined, Part, kept_frames
from pyrf.evaluation.report.measures import Measure, share
from pyrf.evaluation.streams import batches
from pyrf.worlds.world import Frames, World, WorldPrompt

BEFORE = 5
"""Chunks before the change; the first, which may be shorter, and the next are not judged."""
WITHIN = 3
"""Chunks in which the new value is to be shown; each is judged by itself."""
AFTER = 3
"""Further chunks, which are judged together, as are the last three before the change."""


class Change(NamedTuple):
    """A prompt and what becomes of it."""

    old: WorldPrompt
    new: WorldPrompt

    @property
    def name(self) -> str:
        """The attribute that is changed."""
        return next(name for name in self.new.asks if self.new.asks[name] != self.old.asks[name])


class Followed(NamedTuple):
    """How a stream followed a change.

    Attributes:
        name: the attribute that is changed.
        was_shown: whether the new value was shown before.
        chunk: the first chunk after the change that shows it, from 1; None within `WITHIN`.
        lasts: whether the chunks after these show it.
        kept: other attribute that was shown before -> whether it is after.
    """

    name: str
    was_shown: bool
    chunk: int | None
    lasts: bool
    kept: dict[str, bool]


def changes(examined: Examined, count: int) -> Part:
    """How streams follow a change of one attribute of their prompts.

    shown within n    share that shows the new value in one of the first n chunks
    lasts             share that shows it in the three chunks after these
    kept              of the other attributes that were shown before, the share that is shown after

    Streams that show the new value before it is asked for are left out of the first two.

    Raises:
        ValueError: when no prompt can be changed.
    """
    world = examined.world
    prompts = world.held_out(count)
    pairs = [Change(p, new) for n, p in enumerate(prompts) if (new := world.changed(p, random.Random(n)))]
    if not pairs:
        raise ValueError(f"none of the {count} prompts can be changed; ask for more prompts")
    num_frames = examined.pipe.num_frames_of(BEFORE + WITHIN + AFTER)
    found: list[Followed] = []
    rows: list[TitledVideo] = []
    for seeds, numbered in batches(pairs, BATCH):
        later = {BEFORE: [pair.new for pair in numbered]}
        chunks = list(examined.chunks([pair.old for pair in numbered], seeds, num_frames, later))
        for place, pair in enumerate(numbered):
            own = [chunk[place] for chunk in chunks]
            found.append(follow(world, pair, own))
            if len(rows) < SHOWN:
                title = f"{pair.old.text} -> {pair.new.text}"
                rows.append((title, kept_frames(np.concatenate(own))))
    return Part(change_measures(found), rows)


def follow(world: World, pair: Change, chunks: list[Frames]) -> Followed:
    """Judge a stream, given as its BEFORE + WITHIN + AFTER chunks, [T, H, W, 3] each."""
    name = pair.name
    before_clip = np.concatenate(chunks[BEFORE - AFTER : BEFORE])
    before, unasked = world.judge(before_clip, pair.old), world.judge(before_clip, pair.new)
    after = world.judge(np.concatenate(chunks[BEFORE + WITHIN :]), pair.new)
    shown = [world.judge(chunk, pair.new)[name] for chunk in chunks[BEFORE : BEFORE + WITHIN]]
    others = [other for other in pair.new.asks if other != name and before[other]]
    return Followed(
        name,
        unasked[name],
        shown.index(True) + 1 if any(shown) else None,
        after[name],
        {other: after[other] for other in others},
    )


def change_measures(found: list[Followed]) -> list[Measure]:
    """The measures of `changes`; those that no stream can tell of are left out."""
    fresh = [one for one in found if not one.was_shown]
    measures = []
    if fresh:
        for n in range(1, WITHIN + 1):
            held = [one.chunk is not None and one.chunk <= n for one in fresh]
            measures.append(share(f"shown within {n}", held))
        by_name = defaultdict(list)
        for one in fresh:
            by_name[one.name].append(one.chunk is not None)
        measures += [share(f"shown: {name}", held) for name, held in sorted(by_name.items())]
        measures.append(share("lasts", [one.lasts for one in fresh]))
    kept = [held for one in found for held in one.kept.values()]
    if kept:
        measures.append(share("kept", kept))
    return measures
