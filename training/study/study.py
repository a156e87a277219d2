"""The paper's ablation in miniature (Reward Forcing, table of 60-second streams), on a small world.

A variant is a trained network and a way to stream it. Each is measured on prompts that leave the speed
open. There is one file per variant and seed, so that a study may be stopped and continued.

    dynamic, drift, permanence    as the world measures a stream (for shapes: `worlds/shapes/grading.py`)
    color, shape, motion          share of streams whose last 5 s show what was asked for
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.evaluation.held_out import JUDGED_SECONDS, grade
from pyrf.evaluation.streams import Student, batches, make_videos
from pyrf.files import whole_file
from pyrf.loop.inference import inference
from pyrf.training.runner.origin import fingerprint
from pyrf.training.scratch.recipe import ScratchRecipe
from pyrf.worlds.world import Frames, World, WorldPrompt

logger = logging.getLogger(__name__)

COLUMNS = ("dynamic", "drift", "color", "shape", "motion", "permanence")


@runtime_checkable
class MeasuredWorld(World, Protocol):
    """A world that can say how a long stream goes."""

    def measure(self, video: Frames, /) -> dict[str, float]:
        """The "dynamic", "drift" and "permanence" of one stream, uint8 [T, H, W, 3]."""
        ...


class PlainSinkRollout(TorchRollout):
    """A stream whose sink forgets what its own dtype cannot hold, as without the float32 master."""

    @inference()
    def begin_chunk(self) -> None:
        for master in (*(self.cache.key_masters or ()), *(self.cache.value_masters or ())):
            master.zero_()
        super().begin_chunk()


@dataclass(frozen=True)
class Variant:
    """One row of the study.

    Attributes:
        network: the stage that trained it.
        sink: whether the window has one; without it, the ring takes its room.
        alpha: of the EMA; 1 never changes the sink.
        dtype: of network and cache.
        master: whether the sink keeps what the dtype cannot hold.
    """

    name: str
    network: str
    sink: bool = True
    alpha: float = 0.999
    dtype: torch.dtype = torch.float32
    master: bool = True


VARIANTS = (
    Variant("Re-DMD, 1/b = 2, EMA sink .999 (full)", "redmd"),
    Variant("DMD (1/b = 0)", "dmd"),
    Variant("DMD, static sink", "dmd", alpha=1.0),
    Variant("DMD, no sink", "dmd", sink=False),
    Variant("full, alpha .99", "redmd", alpha=0.99),
    Variant("full, alpha .9", "redmd", alpha=0.9),
    Variant("full, alpha .5", "redmd", alpha=0.5),
    Variant("Re-DMD, 1/b = 1", "redmd-1"),
    Variant("Re-DMD, 1/b = 3", "redmd-3"),
    Variant("Re-DMD, 1/b = 5", "redmd-5"),
    Variant("full in bf16, float32-exact sink", "redmd", dtype=torch.bfloat16),
    Variant("full in bf16, plain bf16 sink", "redmd", dtype=torch.bfloat16, master=False),
    Variant("before distillation by distribution (ODE)", "ode"),
)


@dataclass(frozen=True)
class StudySettings:
    """How much is measured: `prompts` streams of `seconds` for each variant and each of `seeds` seeds."""

    prompts: int = 64
    seconds: float = 60.0
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.seeds < 1 or not JUDGED_SECONDS <= self.seconds < math.inf:
            raise ValueError(
                f"a study needs a prompt, a seed and {JUDGED_SECONDS} seconds at least, "
                f"got {self.prompts}, {self.seeds} and {self.seconds}"
            )


def measure(
    student: Student, world: MeasuredWorld, prompts: list[WorldPrompt], seed: int, seconds: float
) -> dict[str, float]:
    """All columns of one variant and seed, each the mean over the prompts' streams."""
    rows: list[dict[str, float]] = []
    ends: list[Frames] = []
    for numbers, part in batches(prompts):
        seeds = [1000 * seed + number for number in numbers]
        videos = make_videos(student, world, [p.text for p in part], seeds, seconds)
        rows += [world.measure(video) for video in videos]
        ends += [video[-JUDGED_SECONDS * world.fps :].copy() for video in videos]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    scores = grade(world, ends, prompts)
    return means | {name: scores[name] for name in ("color", "shape", "motion")}


def load_variant(recipe: ScratchRecipe, variant: Variant, folder: Path) -> Student:
    """The student of a variant from the stages in `folder`.

    Raises:
        FileNotFoundError: when its stage has not been run.
    """
    run, stream = recipe.run_in(folder), recipe.stream
    network = run.network_of(variant.network)
    stream = replace(stream, sink_alpha=variant.alpha, sink_frames=stream.chunk_frames if variant.sink else 0)
    rollout = TorchRollout if variant.master else PlainSinkRollout
    dit = network.dit.to(variant.dtype).eval()
    return Student(dit, network.encode, run.codec_of(recipe.ship.codec), stream, rollout)


def run_study(
    recipe: ScratchRecipe, folder: Path, settings: StudySettings
) -> Iterator[tuple[Variant, list[dict[str, float]] | None]]:
    """Measure, or read back, each variant: its columns for every seed; None where it was not trained.

    The recipe's processes share the work, one variant and seed each at a time.

    Raises:
        ValueError: when the recipe's world cannot measure streams.
        FileNotFoundError: when none was trained, or the codec was not.
    """
    if not isinstance(recipe.world, MeasuredWorld):
        raise ValueError(f"the study needs a world that measures streams; {recipe.world.name} does not")
    results = folder / f"study-{settings.prompts}x{settings.seconds:g}s"
    networks = {variant: folder / variant.network / "network.safetensors" for variant in VARIANTS}
    if not any(network.exists() for network in networks.values()):
        stages = dict.fromkeys(variant.network for variant in VARIANTS)
        raise FileNotFoundError(f"{folder} holds none of the stages {', '.join(stages)}; train them first")
    codec = recipe.run_in(folder).codec_of(recipe.ship.codec).network
    results.mkdir(exist_ok=True)
    missing: list[_Task] = []
    files: dict[Variant, list[Path] | None] = {}
    for variant, network in networks.items():
        if not network.exists():
            logger.info("%s: stage %s was not run, left out", variant.name, variant.network)
            files[variant] = None
            continue
        tasks = []
        for seed in range(settings.seeds):
            key = fingerprint(variant, network, codec, recipe.stream, recipe.world, seed)[:16]
            tasks.append(_Task(recipe, folder, settings, variant, seed, results / f"{key}.json"))
        files[variant] = [task.file for task in tasks]
        missing += [task for task in tasks if not task.file.exists()]
    if missing:
        workers = min(recipe.processes, len(missing))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (recipe.threads,)) as pool:
            try:
                for task, values in zip(missing, pool.map(_run, missing)):
                    logger.info("%s, seed %d: %s", task.variant.name, task.seed, values)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for variant, paths in files.items():
        yield variant, None if paths is None else [json.loads(path.read_text()) for path in paths]


@dataclass(frozen=True)
class _Task:
    """A variant and a seed to measure, and where its columns go."""

    recipe: ScratchRecipe
    folder: Path
    settings: StudySettings
    variant: Variant
    seed: int
    file: Path


def _run(task: _Task) -> dict[str, float]:
    student = load_variant(task.recipe, task.variant, task.folder)
    world = task.recipe.world
    assert isinstance(world, MeasuredWorld)
    prompts = world.held_out(task.settings.prompts, open_speed=True)
    values = measure(student, world, prompts, task.seed, task.settings.seconds)
    with whole_file(task.file) as temporary:
        temporary.write_text(json.dumps({name: values[name] for name in COLUMNS}))
    return values
