"""How live video in restyles: clips that the world draws, under a prompt that asks for something else.

Each clip comes with prompts that each change one attribute of it. What the results show is read by the
world's detector, and the path of the thing in them is compared with that in the clip.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrf.pipeline import StreamingPipeline
from pyrf.worlds.shapes.attributes import HEIGHT, WIDTH
from pyrf.worlds.shapes.detector import path
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.world import Frames, WorldPrompt

CHUNKS = 5
"""Of a clip; the first one is not judged, as a stream has no past there."""
CHANGED = ("color", "shape", "size", "background")
TRIES = 200


@dataclass(frozen=True)
class Restyled:
    """One result.

    Attributes:
        name: the attribute that the prompt changes.
        is_right: whether the result shows its new value.
        kept: of the other attributes that the prompt names, the share that the result shows.
        correlation: of the paths in source and result, both axes together, -1..1.
        distance: pixels between the two paths, the median over the frames.
    """

    name: str
    is_right: bool
    kept: float
    correlation: float
    distance: float


@dataclass(frozen=True)
class StrengthRow:
    """What the results of a strength have in common."""

    strength: float
    right: dict[str, float]
    kept: float
    correlation: float
    distance: float

    @property
    def all_right(self) -> float:
        """Share of changed attributes that are read right."""
        return float(np.mean(list(self.right.values())))


def sources(world: ShapesWorld, count: int) -> Iterator[tuple[WorldPrompt, list[WorldPrompt]]]:
    """Held-out prompts that name all attributes and motion, each with one change of each of `CHANGED`."""
    found = 0
    for prompt in world.held_out(40 * count + 40):
        if not set(CHANGED) <= set(prompt.asks) or prompt.asks["motion"] == "still":
            continue
        changed: dict[str, WorldPrompt] = {}
        rng = random.Random(found)
        for _ in range(TRIES):
            new = world.changed(prompt, rng)
            if new is not None:
                changed.setdefault(next(n for n in new.asks if new.asks[n] != prompt.asks[n]), new)
        if set(CHANGED) <= set(changed):
            yield prompt, [changed[name] for name in CHANGED]
            found += 1
        if found == count:
            return


def restyle(
    pipe: StreamingPipeline, world: ShapesWorld, count: int, strengths: Sequence[float]
) -> Iterator[tuple[float, list[Restyled]]]:
    """The results of each clip and strength, one for each changed attribute."""
    for number, (prompt, targets) in enumerate(sources(world, count)):
        scene = world.scene_for(prompt, random.Random(number))
        clip = scene.render(0, pipe.num_frames_of(CHUNKS))
        for strength in strengths:
            with pipe.stream([t.text for t in targets], number, source=clip, strength=strength) as stream:
                made = np.concatenate([next(stream).frames for _ in range(CHUNKS)], axis=1)
            yield (
                strength,
                [
                    judged(world, clip, result, target, name)
                    for result, target, name in zip(made, targets, CHANGED)
                ],
            )


def judged(world: ShapesWorld, clip: Frames, result: Frames, target: WorldPrompt, name: str) -> Restyled:
    """Compare a result with its source and its prompt."""
    first = len(clip) // CHUNKS
    verdicts = world.judge(result[first:], target)
    there, here = path(clip), path(result)
    return Restyled(
        name,
        verdicts[name],
        float(np.mean([verdicts[other] for other in target.asks if other != name])),
        correlation(there, here),
        float(np.median(np.hypot(*_wrapped(here - there).T))),
    )


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two paths [T, 2], around their means; 0 where one stands still."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / size if size else 0.0


def _wrapped(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    period = np.array([WIDTH, HEIGHT])
    return np.asarray((difference + period / 2) % period - period / 2)


def rows(results: Sequence[tuple[float, list[Restyled]]]) -> list[StrengthRow]:
    """The means of each strength, in rising order."""
    by_strength: dict[float, list[Restyled]] = {}
    for strength, found in results:
        by_strength.setdefault(strength, []).extend(found)
    return [
        StrengthRow(
            strength,
            {name: float(np.mean([r.is_right for r in all_of if r.name == name])) for name in CHANGED},
            float(np.mean([r.kept for r in all_of])),
            float(np.mean([r.correlation for r in all_of])),
            float(np.median([r.distance for r in all_of])),
        )
        for strength, all_of in sorted(by_strength.items())
    ]


def table(found: Sequence[StrengthRow]) -> str:
    """As Markdown."""
    head = ["strength", *CHANGED, "all", "kept", "path", "px away"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in found:
        shares = [*(row.right[name] for name in CHANGED), row.all_right, row.kept]
        cells = [
            f"{row.strength:g}",
            *(f"{100 * share:.0f} %" for share in shares),
            f"{row.correlation:.2f}",
            f"{row.distance:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
