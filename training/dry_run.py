"""What a recipe would do: parameters, memory, steps and files, without loading or downloading anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pyrf.memory.bill import GIB, MemoryRow, total
from pyrf.training.needs import FileNeed, NetworkSize
from pyrf.training.recipe import Recipe


@dataclass(frozen=True)
class StagePlan:
    """One stage in numbers.

    Attributes:
        global_batch: samples of a step: `micro_batches` of `batch` in each process.
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
    networks: dict[str, NetworkSize]
    memory: list[MemoryRow]
    host_bytes: int

    @property
    def gpu_bytes(self) -> int:
        return total(self.memory)


@dataclass(frozen=True)
class DryRun:
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


def plan(
    recipe: Recipe, processes: int, folder: Path | None = None, names: Sequence[str] | None = None
) -> DryRun:
    """Count what each stage of a recipe needs.

    Args:
        processes: GPUs, or processes on a CPU.
        folder: of the run, for files that stages leave there.
        names: of the stages to count; by default all.

    Raises:
        ValueError: when there is no such stage, or a global batch does not split among the processes.
    """
    stages, files = [], []
    for name in names or recipe.stages:
        recipe.check_stage(name)
        stage = recipe.stages[name]
        micro = stage.train.accumulate(processes)
        whole = stage.train.batch * micro * processes
        needs = recipe.needs(name, processes, folder)
        stages.append(
            StagePlan(
                stage=name,
                steps=stage.train.steps,
                batch=stage.train.batch,
                micro_batches=micro,
                global_batch=whole,
                samples=stage.train.steps * whole,
                networks=needs.networks,
                memory=needs.memory,
                host_bytes=needs.host_bytes,
            )
        )
        files += needs.files
    return DryRun(processes, stages, files)


def show(name: str, counted: DryRun, console: Console) -> None:
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
