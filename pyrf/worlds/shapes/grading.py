"""Held-out prompts and how well videos follow them, as the world's detector sees it."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrf.worlds.shapes.captions import caption
from pyrf.worlds.shapes.detector import Detection, detect
from pyrf.worlds.shapes.scenes import BACKGROUNDS, COLORS, SIZES, SPEEDS, Attributes, World

HELD_OUT_SEED = 77
NAMED = ("color", "shape", "motion", "speed", "size", "background")


@dataclass(frozen=True)
class Prompt:
    """A caption and what it says; size and background count only where the caption names them."""

    text: str
    attributes: Attributes
    stated: frozenset[str]


def held_out_prompts(
    world: World, count: int, seed: int = HELD_OUT_SEED, *, open_speed: bool = False
) -> list[Prompt]:
    """Prompts with colours, shapes and motions in balance, from seeds that training never draws.

    Args:
        open_speed: no caption names a speed, so that each may be followed at any.
    """
    rng = random.Random(f"held out {seed}")
    prompts = []
    for i in range(count):
        shapes, motions, colors = world.shapes, world.motions, list(COLORS)
        motion = motions[i % len(motions)]
        attributes = Attributes(
            color=colors[(i + i // len(colors)) % len(colors)],
            shape=shapes[(i + i // len(motions)) % len(shapes)],
            size=rng.choice(list(SIZES)),
            motion=motion,
            speed=None if open_speed or motion == "still" else rng.choice(list(SPEEDS)),
            background=rng.choice(list(BACKGROUNDS)),
        )
        bare = caption(attributes, random.Random(i), named=0.0)
        full = caption(attributes, random.Random(i), named=1.0)
        everything = rng.random() < 0.65
        stated = frozenset(NAMED if everything else NAMED[:4])
        prompts.append(Prompt(full if everything else bare, attributes, stated))
    return prompts


def judge(videos: list[NDArray[np.uint8]], prompts: list[Prompt]) -> tuple[dict[str, float], list[Detection]]:
    """Share of videos right in each attribute, among prompts that state it, and what was seen.

    "frozen" is the share of those asked to move that stand still, "lost" of all that show no object.
    """
    seen = [detect(video) for video in videos]
    scores = {}
    for name in NAMED:
        right = [d.matches(p.attributes)[name] for d, p in zip(seen, prompts) if name in p.stated]
        scores[name] = float(np.mean(right))
    for motion in sorted({p.attributes.motion for p in prompts}):
        right = [d.motion == motion for d, p in zip(seen, prompts) if p.attributes.motion == motion]
        scores[f"motion/{motion}"] = float(np.mean(right))
    asked_to_move = [d for d, p in zip(seen, prompts) if p.attributes.motion != "still"]
    scores["frozen"] = float(np.mean([d.motion == "still" for d in asked_to_move]))
    scores["lost"] = float(np.mean([d.shape is None for d in seen]))
    return scores, seen
