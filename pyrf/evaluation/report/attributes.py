"""Part "attributes": what clips of five seconds show of what their prompts ask for."""

from __future__ import annotations

import numpy as np

from pyrf.evaluation.held_out import JUDGED_SECONDS, SHOWN, TitledVideo, tally
from pyrf.evaluation.report.examined import Examined, Part, kept_frames
from pyrf.evaluation.report.measures import share, shares
from pyrf.worlds.world import WorldPrompt


def attributes(examined: Examined, count: int) -> Part:
    """Share of the clips that show each attribute they ask for; the bar is the same of true clips.

    "every" says that a clip shows all that is asked.
    """
    world = examined.world
    prompts = world.held_out(count)
    found, true, every = [], [], []
    rows: list[TitledVideo] = []
    for number, prompt, clip in examined.clips(prompts, JUDGED_SECONDS):
        found.append(world.judge(clip, prompt))
        every.append(shows_all(found[-1], prompt))
        true.append(world.judge(examined.true_clip(number, prompt, len(clip)), prompt))
        if len(rows) < SHOWN:
            rows.append((prompt.text, kept_frames(clip)))
    asked = {name for prompt in prompts for name in prompt.asks}
    reached = {name: float(np.mean(held)) for name, held in tally(world, true).items() if name in asked}
    all_true = [shows_all(verdicts, prompt) for verdicts, prompt in zip(true, prompts)]
    measures = shares(tally(world, found), reached)
    return Part([*measures, share("every", every, at_least=float(np.mean(all_true)))], rows)


def shows_all(verdicts: dict[str, bool], prompt: WorldPrompt) -> bool:
    """Whether a clip shows every attribute that is asked for."""
    return all(verdicts[name] for name in prompt.asks)
