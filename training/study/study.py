"""The paper's ablation in miniature (Reward Forcing, table of 60-second streams), on a small world.

A variant is a trained network and a way to stream it, see `variants.py`. Each is measured on prompts that
leave the speed open. There is one file per variant, training and seed, so that a study may be continued.

    dynamic, drift, permanence    as the world measures a stream (`pyrf/worlds/shapes/grading.py`,
                                  `pyrf/worlds/valley/measuring.py`)
    what a world follows          share of streams whose last 5 s show what was asked for
    copying                       share of the later frames that are one of the first 3 s again
                                  (`pyrf/evaluation/videos/measures.py`)
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.evaluation.held_out import JUDGED_SECONDS, grade
from pyrf.evaluation.streams import BATCH, Student, batches, make_videos
from pyrf.evaluation.videos.clip import Clip
from pyrf.evaluation.videos.measures import copying
from pyrf.files import whole_file
from pyrf.loop.inference import inference
from pyrf.training.recipe import RecipeError
from pyrf.training.runner.origin import fingerprint
from pyrf.training.scratch.networks import NETWORK
from pyrf.training.scratch.recipe import ScratchRecipe
from pyrf.training.study.variants import Variant, variants_of
from pyrf.worlds.world import Frames, MeasuredWorld, WorldPrompt

logger = logging.getLogger(__name__)

Columns = list[dict[str, float]]
"""One dictionary per seed of the noise: column -> its mean over the streams, shares from 0 to 1."""
Results = dict[str, Columns]
"""Stage that trained a variant -> what was measured of it; stages that were not run are left out."""
MOST_BYTES = 1 << 29
"""Of the frames of the streams that run side by side."""


def columns_of(world: MeasuredWorld) -> tuple[str, ...]:
    """Names of the columns, in the order of the page."""
    return ("dynamic", "drift", *world.followed, "permanence", "copying")


class PlainSinkRollout(TorchRollout):
    """A stream whose sink forgets what its own dtype cannot hold, as without the float32 master."""

    @inference()
    def begin_chunk(self) -> None:
        for master in (*(self.cache.key_masters or ()), *(self.cache.value_masters or ())):
            master.zero_()
        super().begin_chunk()


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
    frames = round(seconds * world.fps)
    size = max(1, min(BATCH, MOST_BYTES // (3 * frames * world.height * world.width)))
    for numbers, part in batches(prompts, size):
        seeds = [1000 * seed + number for number in numbers]
        videos = make_videos(student, world, [p.text for p in part], seeds, seconds)
        rows += [world.measure(v) | {"copying": copying(Clip(v, world.fps)).value} for v in videos]
        ends += [video[-JUDGED_SECONDS * world.fps :].copy() for video in videos]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    scores = grade(world, ends, prompts)
    return means | {name: scores[name] for name in world.followed}


def load_variant(recipe: ScratchRecipe, variant: Variant, network: str, folder: Path) -> Student:
    """The student of a variant, as the stage `network` trained it in `folder`.

    Raises:
        FileNotFoundError: when its stage has not been run.
    """
    run, stream = recipe.run_in(folder), recipe.stream
    trained = run.network_of(network)
    stream = replace(stream, sink_alpha=variant.alpha, sink_frames=stream.chunk_frames if variant.sink else 0)
    rollout = TorchRollout if variant.master else PlainSinkRollout
    dit = trained.dit.to(variant.dtype).eval()
    return Student(dit, trained.encode, run.codec_of(recipe.ship.codec), stream, rollout)


def measured(recipe: ScratchRecipe) -> MeasuredWorld:
    """The recipe's world.

    Raises:
        RecipeError: when it cannot measure streams.
    """
    if not isinstance(recipe.world, MeasuredWorld):
        raise RecipeError(f"this needs a world that measures streams; {recipe.world.name} does not")
    return recipe.world


def run_study(
    recipe: ScratchRecipe, folder: Path, settings: StudySettings
) -> Iterator[tuple[Variant, Results]]:
    """Measure, or read back, each variant: its columns for every training and every seed.

    The recipe's processes share the work, one training and seed of a variant each at a time.

    Raises:
        RecipeError: when the recipe's world cannot measure streams, or nothing can be compared.
        FileNotFoundError: when none was trained, or the codec was not.
    """
    world, variants = measured(recipe), variants_of(recipe)
    results = folder / f"study-{settings.prompts}x{settings.seconds:g}s"
    stages = list(dict.fromkeys(stage for variant in variants for stage in variant.networks))
    networks = {stage: folder / stage / NETWORK for stage in stages}
    if not any(network.exists() for network in networks.values()):
        raise FileNotFoundError(f"{folder} holds none of the stages {', '.join(stages)}; train them first")
    codec = recipe.run_in(folder).codec_of(recipe.ship.codec).network
    results.mkdir(exist_ok=True)
    for stage in (stage for stage in stages if not networks[stage].exists()):
        logger.info("stage %s was not run, left out", stage)
    tasks: dict[Variant, dict[str, list[_Task]]] = {}
    for variant in variants:
        run = [stage for stage in variant.networks if networks[stage].exists()]
        tasks[variant] = {stage: [] for stage in run}
        for stage, seed in itertools.product(run, range(settings.seeds)):
            how = (variant.sink, variant.alpha, variant.dtype, variant.master, columns_of(world))
            key = fingerprint(how, networks[stage], codec, recipe.stream, world, seed)[:16]
            file = results / f"{key}.json"
            tasks[variant][stage].append(_Task(recipe, folder, settings, variant, stage, seed, file))
    missing = [t for of in tasks.values() for them in of.values() for t in them if not t.file.exists()]
    if missing:
        workers = min(recipe.processes, len(missing))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (recipe.threads,)) as pool:
            try:
                for task, values in zip(missing, pool.map(_run, missing)):
                    logger.info("%s, stage %s, seed %d: %s", task.variant.name, task.stage, task.seed, values)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for variant, of in tasks.items():
        yield variant, {stage: [json.loads(t.file.read_text()) for t in them] for stage, them in of.items()}


@dataclass(frozen=True)
class _Task:
    """A training of a variant and a seed of the noise to measure, and where its columns go."""

    recipe: ScratchRecipe
    folder: Path
    settings: StudySettings
    variant: Variant
    stage: str
    seed: int
    file: Path


def _run(task: _Task) -> dict[str, float]:
    student = load_variant(task.recipe, task.variant, task.stage, task.folder)
    world = measured(task.recipe)
    prompts = world.held_out(task.settings.prompts, open_speed=True)
    values = measure(student, world, prompts, task.seed, task.settings.seconds)
    with whole_file(task.file) as temporary:
        temporary.write_text(json.dumps({name: values[name] for name in columns_of(world)}))
    return values
