"""What a recipe would do: parameters, memory, steps and files, without loading or downloading anything."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pyrf.bundle.bundle import BundleError
from pyrf.bundle.hub import find_bundle
from pyrf.evaluation.scores.settings import VideoAlignSettings, single_scores
from pyrf.training.recipe import AnyRecipe, Recipe, WanDmdRecipe, WanRecipe
from pyrf.training.wan import memory

GIB = 2**30
HUB_ID = r"[\w.-]+/[\w.-]+"


@dataclass(frozen=True)
class FileNeed:
    """A file or bundle that a stage reads.

    Attributes:
        there: whether it is on this machine, in the hub's cache included.
    """

    stage: str
    what: str
    name: str
    there: bool


@dataclass(frozen=True)
class StagePlan:
    """One stage in numbers.

    Attributes:
        global_batch: samples of a step; `micro_batches` of `batch` in each process.
        samples: of the whole stage.
        networks: parameters by network, of the whole.
        memory: of the fullest GPU, by part.
        host_bytes: on the CPU, in each process.
    """

    stage: str
    steps: int
    batch: int
    micro_batches: int
    global_batch: int
    samples: int
    networks: dict[str, memory.NetworkSize]
    memory: list[memory.Row]
    host_bytes: int

    @property
    def gpu_bytes(self) -> int:
        return sum(row.bytes for row in self.memory)


@dataclass(frozen=True)
class Plan:
    """A whole recipe in numbers."""

    processes: int
    stages: list[StagePlan]
    files: list[FileNeed]

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        values = asdict(self)
        for stage, counted in zip(values["stages"], self.stages):
            stage["gpu_bytes"] = counted.gpu_bytes
        return values


def plan(recipe: AnyRecipe, processes: int, folder: Path | None = None) -> Plan:
    """Build the networks of a recipe on the meta device and count.

    Args:
        processes: GPUs, or processes on a CPU.
        folder: of the run, for files that stages leave there.

    Raises:
        ValueError: when a global batch does not split among the processes.
    """
    stages, files = [], []
    for name, stage in recipe.stages.items():
        micro = stage.train.accumulate(processes)
        whole = stage.train.batch * micro * processes
        networks: dict[str, memory.NetworkSize] = {}
        rows: list[memory.Row] = []
        host = 0
        if isinstance(recipe, WanRecipe):
            wan = recipe.stages[name]
            networks = {k: memory.network_size(n.config, processes) for k, n in wan.networks.items()}
            rows = memory.memory_rows(recipe, wan, networks)
            host = memory.text_encoder_parameters() * memory.HALF
        steps, batch = stage.train.steps, stage.train.batch
        stages.append(StagePlan(name, steps, batch, micro, whole, steps * whole, networks, rows, host))
        files += _files(recipe, name, folder)
    return Plan(processes, stages, files)


def _files(recipe: AnyRecipe, name: str, folder: Path | None) -> list[FileNeed]:
    """What a stage reads."""
    if isinstance(recipe, Recipe):
        stage = recipe.stages[name]
        before = {"init": getattr(stage, "init", None), "teacher": getattr(stage, "teacher", None)}
        known = {what: other for what, other in before.items() if isinstance(other, str)}
        return [
            FileNeed(name, f"{what}: stage", other, folder is not None and (folder / other).exists())
            for what, other in known.items()
        ]
    wan = recipe.stages[name]
    needs = [
        FileNeed(name, "prompts", str(recipe.prompts), recipe.prompts.is_file()),
        FileNeed(name, "text encoder, VAE", recipe.codec, _has_bundle(recipe.codec)),
    ]
    for what, network in wan.networks.items():
        needs.append(FileNeed(name, f"{what}: bundle", network.bundle, _has_bundle(network.bundle)))
        if network.weights is not None:
            needs.append(FileNeed(name, f"{what}: weights", network.weights, _has_file(network.weights)))
    if isinstance(wan, WanDmdRecipe):
        for reward in single_scores(wan.dmd.reward):
            if isinstance(reward, VideoAlignSettings):
                for part in (reward.checkpoint, reward.base):
                    needs.append(FileNeed(name, "reward", str(part), part.is_dir()))
    elif folder is not None:
        made = len(list((folder / name / "paths").glob("*.safetensors")))
        label = f"{made} of {wan.ode.paths} shards of paths; the others are made"
        needs.append(FileNeed(name, "paths", label, made == wan.ode.paths))
    return needs


def _has_bundle(name: str) -> bool:
    if not re.fullmatch(HUB_ID, name) or Path(name).is_dir():
        try:
            return find_bundle(name).is_dir()
        except BundleError:
            return False
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(name, file), str) for file in ("model_index.json", "config.json")
    )


def _has_file(name: str) -> bool:
    match = re.fullmatch(rf"({HUB_ID})/(.+)", name)
    if Path(name).is_file() or not match:
        return Path(name).is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(*match.groups()), str)


def show(name: str, counted: Plan, console: Console) -> None:
    """Print a plan as tables."""
    steps = Table("stage", "steps", "micro-batches", "global batch", "samples", title=f"{name}: steps")
    for stage in counted.stages:
        split = f"{counted.processes} x {stage.micro_batches} x {stage.batch}"
        row = (stage.stage, f"{stage.steps:,}", split, f"{stage.global_batch:,}", f"{stage.samples:,}")
        steps.add_row(*row)
    console.print(steps)
    for stage in counted.stages:
        if stage.memory:
            _show_memory(stage, counted.processes, console)
    files = Table("stage", "needs", "name", "here", title="files")
    for need in counted.files:
        files.add_row(need.stage, need.what, need.name, "present" if need.there else "missing")
    console.print(files)


def _show_memory(stage: StagePlan, processes: int, console: Console) -> None:
    parameters = Table("network", "parameters", title=f"{stage.stage}: parameters")
    for network, size in stage.networks.items():
        parameters.add_row(network, f"{size.parameters:,}")
    parameters.columns[1].justify = "right"
    console.print(parameters)
    table = Table("part", "GiB", "how", title=f"{stage.stage}: memory of each of {processes} GPUs")
    table.columns[1].justify = "right"
    for row in stage.memory:
        table.add_row(row.part, f"{row.bytes / GIB:.2f}", row.how)
    table.add_section()
    table.add_row("total", f"{stage.gpu_bytes / GIB:.2f}", "")
    host = "in the CPU's memory of each process; visits the GPU while prompts are embedded"
    table.add_row("text encoder", f"{stage.host_bytes / GIB:.2f}", host)
    console.print(table)
