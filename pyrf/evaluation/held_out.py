"""How well streams follow prompts that training never drew, as the judge of their world sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pyrf.bundle.bundle import Bundle, load_bundle
from pyrf.bundle.stream_choice import StreamAsked
from pyrf.evaluation.streams import Student, batches, make_videos
from pyrf.worlds.world import Frames, World, WorldPrompt

TitledVideo = tuple[str, Frames]
"""A prompt and its video."""
JUDGED_SECONDS = 5
"""Of a stream: its last ones."""
SHOWN = 12
"""Streams of a contact sheet."""
FEWEST_FRAMES = 9
"""Without motion to see, a clip cannot be judged."""


def grade(world: World, videos: Sequence[Frames], prompts: Sequence[WorldPrompt]) -> dict[str, float]:
    """Share of the videos for which a criterion holds, among those that are judged on it.

    A criterion that no prompt asks for is left out.
    """
    verdicts = [world.judge(video, prompt) for video, prompt in zip(videos, prompts)]
    return {name: float(np.mean(held)) for name, held in tally(world, verdicts).items()}


def tally(world: World, verdicts: Sequence[Mapping[str, bool]]) -> dict[str, list[bool]]:
    """Criterion -> its verdicts on the clips that are judged on it, in the order of the world's criteria."""
    found = {name: [verdict[name] for verdict in verdicts if name in verdict] for name in world.criteria}
    return {name: held for name, held in found.items() if held}


def score_streams(
    student: Student, world: World, count: int, seconds: float = JUDGED_SECONDS
) -> tuple[dict[str, float], list[TitledVideo]]:
    """Scores on held-out prompts over the last five seconds of streams, and up to 12 streams to look at.

    Prompt n has seed n.
    """
    prompts = world.held_out(count)
    ends: list[Frames] = []
    rows: list[TitledVideo] = []
    for seeds, part in batches(prompts):
        videos = make_videos(student, world, [p.text for p in part], seeds, seconds)
        ends.extend(video[-JUDGED_SECONDS * world.fps :].copy() for video in videos)
        if len(rows) < SHOWN:
            rows += [(p.text, video) for p, video in zip(part, videos)]
    return grade(world, ends, prompts), rows[:SHOWN]


def bundle_for(model: str, world: World, stream: StreamAsked = ()) -> Bundle:
    """The bundle of a name or directory, whose videos have the size and the rate of a world.

    Raises:
        ValueError: when they have not, or the bundle is not found or damaged.
    """
    bundle = load_bundle(model, stream=stream)
    if (bundle.height, bundle.width) != (world.height, world.width):
        raise ValueError(
            f"{model} does not show the {world.name} world: it makes {bundle.width}x{bundle.height} video; "
            "name the world that it shows"
        )
    if bundle.fps != world.fps:
        raise ValueError(
            f"{model} does not show the {world.name} world: it makes {bundle.fps:g} frames per second, "
            f"the world {world.fps}"
        )
    return bundle


def evaluate(
    model: str, world: World, prompts: int, seconds: float, sheet: Path, stream: StreamAsked = ()
) -> tuple[dict[str, float], list[TitledVideo]]:
    """Scores of a bundle's last five seconds on held-out prompts of a world, and its first streams.

    Args:
        model: name or directory of a bundle.
        sheet: where the caller will put a contact sheet of these streams; its name is looked at.
        stream: how it streams, where not as the bundle says.

    Raises:
        ValueError: when the bundle is not one for this world, or the stream is too short to judge.
    """
    if sheet.suffix != ".png":
        raise ValueError(f"the sheet is a PNG picture; give a path that ends in .png, got {sheet}")
    if prompts < 1 or not FEWEST_FRAMES <= seconds * world.fps < math.inf:
        raise ValueError(
            f"evaluation needs a prompt and {FEWEST_FRAMES / world.fps:.2g} seconds at least, "
            f"got {prompts} and {seconds}"
        )
    bundle = bundle_for(model, world, stream)
    text = bundle.text_encoder()
    student = Student(bundle.transformer(), text.encode, bundle.codec(), bundle.stream_config)
    return score_streams(student, world, prompts, seconds)
