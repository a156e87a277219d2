"""Checkpoints of a training: written by all processes, whole or not at all, checked before they are read.

A checkpoint is a folder `step-00000400` with the shards of torch.distributed.checkpoint, `progress.json`
and `manifest.json`, which holds size and CRC-32 of every file. It is written under a temporary name.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException

from pyrf.training.runner import processes

logger = logging.getLogger(__name__)

PREFIX, MANIFEST, PROGRESS = "step-", "manifest.json", "progress.json"
BLOCK = 1 << 24


def save(folder: Path, step: int, tensors: dict[str, Tensor], progress: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint of `step`, then remove all but it and the `keep - 1` before; every process calls it.

    Those of later steps were damaged, or the run would have gone on from them: they go as well.

    Args:
        folder: of the checkpoints, which all processes reach.
        tensors: plain ones, the same in all processes, or DTensors, of which each writes its part.
        progress: what else a resumed run must know; JSON.
    """
    path = folder / f"{PREFIX}{step:08d}"
    temporary = folder / f".{path.name}.tmp"
    first = processes.rank() == 0
    if first:
        for left in folder.glob(f".{PREFIX}*.tmp"):  # by a run that died while it wrote
            shutil.rmtree(left)
        temporary.mkdir(parents=True)
    processes.barrier()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*assuming the intent is to save in a single process")
        writer = dcp.FileSystemWriter(temporary, single_file_per_rank=True)
        dcp.save(tensors, storage_writer=writer)
    if first:
        (temporary / PROGRESS).write_text(json.dumps({**progress, "step": step}))
    processes.barrier()
    manifest = _sums(temporary, sorted(file.name for file in temporary.iterdir()))
    if first:
        (temporary / MANIFEST).write_text(json.dumps(manifest))
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        kept = [other for other in _all(folder) if other.name <= path.name][:keep]
        for other in _all(folder):
            if other not in kept:
                shutil.rmtree(other)
    processes.barrier()
    return path


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is whole; a damaged one is passed over with a warning."""
    for path in _all(folder):
        try:
            expected = json.loads((path / MANIFEST).read_text())
            damaged = _sums(path, sorted(expected)) != expected
        except (OSError, ValueError):
            damaged = True
        if not any(processes.gather(damaged)):
            return path
        logger.warning("%s is damaged and passed over", path)
    return None


def read_progress(path: Path) -> dict[str, Any]:
    """What `save` was given beside the tensors, and `step`."""
    progress: dict[str, Any] = json.loads((path / PROGRESS).read_text())
    return progress


def names(path: Path) -> set[str]:
    """Names of the tensors in a checkpoint."""
    return set(dcp.FileSystemReader(path).read_metadata().state_dict_metadata)


def load(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors` in place; every process calls it. The number of processes may have changed.

    Raises:
        ValueError: when the checkpoint lacks one of them, or has it in another size.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single process")
        try:
            dcp.load(tensors, storage_reader=dcp.FileSystemReader(path))
        except CheckpointException as error:  # no Exception
            reasons = [str(wrapped[0]) for wrapped in error.failures.values()]
            raise ValueError(
                f"{path} is of another network ({reasons[0].splitlines()[0]}); "
                "put the recipe back as it was, or train in a new folder"
            ) from error


def _all(folder: Path) -> list[Path]:
    """Checkpoints in a folder, the newest first."""
    return sorted(folder.glob(f"{PREFIX}*"), reverse=True)


def _sums(folder: Path, files: list[str]) -> dict[str, list[int]]:
    """Size and CRC-32 of each file; the processes share the work.

    Raises:
        OSError: when one cannot be read.
    """
    mine: dict[str, list[int]] = {}
    failure: OSError | None = None
    for name in files[processes.rank() :: processes.world_size()]:
        size = crc = 0
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(BLOCK):
                    size, crc = size + len(block), zlib.crc32(block, crc)
        except OSError as error:
            failure = error
        mine[name] = [size, crc]
    parts = processes.gather((mine, failure and str(failure)))
    if problems := [problem for _, problem in parts if problem]:
        raise OSError(problems[0])
    return {name: sums for part, _ in parts for name, sums in part.items()}
