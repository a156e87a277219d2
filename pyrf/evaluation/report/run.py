"""Measure a bundle against a world: the parts, and which of them are still to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from pyrf.bundle.stream_choice import StreamAsked
from pyrf.evaluation.held_out import bundle_for
from pyrf.evaluation.report.attributes import attributes
from pyrf.evaluation.report.changes import changes
from pyrf.evaluation.report.examined import Examined, Part
from pyrf.evaluation.report.folder import ReportFolder
from pyrf.evaluation.report.lasting import lasting
from pyrf.evaluation.report.picture import picture
from pyrf.evaluation.report.told_apart import told_apart
from pyrf.export.fingerprint import bundle_fingerprint
from pyrf.loading import Decision, load
from pyrf.memory.setup import Setup
from pyrf.pipeline import StreamingPipeline
from pyrf.printing import counted
from pyrf.worlds.world import World

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """How a part is measured.

    Attributes:
        measure: from what is examined and the number of prompts.
        prompts: unless another number is asked for.
        fewest: prompts that it needs.
    """

    measure: Callable[[Examined, int], Part]
    prompts: int
    fewest: int = 1


PARTS = {
    "attributes": Kind(attributes, 200),
    "minute": Kind(partial(lasting, seconds=60.0), 40),
    "ten-minutes": Kind(partial(lasting, seconds=600.0), 8),
    "changes": Kind(changes, 60),
    "picture": Kind(picture, 40),
    "told-apart": Kind(told_apart, 100, fewest=2),
}


def measure(
    model: str,
    world: World,
    out: Path,
    only: Sequence[str] | None = None,
    prompts: int | None = None,
    stream: StreamAsked = (),
) -> ReportFolder:
    """Measure what the report in a folder does not have yet, on the CPU.

    Args:
        model: name or directory of a bundle.
        only: names of parts; by default all.
        prompts: for each of them; by default its own number.
        stream: how it streams, where not as the bundle says.

    Raises:
        ValueError: when a part is unknown, there are too few prompts, the bundle is not one for this world,
            or the folder has a report about something else.
    """
    chosen = {name: kind.prompts if prompts is None else prompts for name, kind in _chosen(only).items()}
    for name, count in chosen.items():
        if count < PARTS[name].fewest:
            raise ValueError(f"{name} needs {counted(PARTS[name].fewest, 'prompt')} at least, got {count}")
    bundle = bundle_for(model, world, stream)
    about = {"model": model, "weights": bundle_fingerprint(bundle), "world": f"{world.name} {world!r}"}
    if asked := bundle.choice.to_dict():
        about["stream"] = repr(asked)
    report = ReportFolder(out, about, PARTS)
    missing = {name: count for name, count in chosen.items() if not report.has(name, count)}
    if not missing:
        return report
    setup = Setup(torch.float32, torch.device("cpu"), bundle.stream_config)
    decision = Decision(bundle, setup, name=model)
    examined = Examined(StreamingPipeline(decision, load(decision)), world)
    for name, count in missing.items():
        log.info("%s: %d prompts", name, count)
        report.keep(name, count, PARTS[name].measure(examined, count))
    return report


def _chosen(only: Sequence[str] | None) -> dict[str, Kind]:
    for name in only or ():
        if name not in PARTS:
            raise ValueError(f"no part {name!r}; there are {', '.join(PARTS)}")
    return {name: kind for name, kind in PARTS.items() if not only or name in only}
