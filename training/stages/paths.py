"""Teacher paths on disk: shards of safetensors, each whole or not at all, made by all processes in step."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyrf.files import whole_file
from pyrf.training.runner import processes
from pyrf.training.runner.origin import KEY, origin_of

logger = logging.getLogger(__name__)

STATES, END = "states", "end"


class PathShards:
    """Shards 0 .. count - 1 in a folder.

    A shard holds, for each of its samples, `states` [levels, F, C, h, w], `end` [F, C, h, w], what was
    given, and the caption.

    Args:
        origin: fingerprint of the teacher and all settings that shape a path.

    Raises:
        ValueError: when the folder holds shards of another origin.
    """

    def __init__(self, folder: Path, count: int, origin: str) -> None:
        self.files = [folder / f"shard-{i:05d}.safetensors" for i in range(count)]
        self.origin = origin
        if any(file.exists() and origin_of(file) != origin for file in self.files):
            raise ValueError(
                f"{folder} holds paths of another teacher or of other settings; remove it to make them "
                "again, or put the recipe back as it was"
            )

    def missing(self) -> list[int]:
        """Shards yet to be made, as the first process sees the folder."""
        here = [i for i, file in enumerate(self.files) if not file.exists()]
        return list(processes.gather(here)[0])

    def make(self, make: Callable[[int], tuple[dict[str, Tensor], list[str]]]) -> None:
        """Make what is missing.

        Args:
            make: a shard's number to its tensors, [samples, ...] each, and captions. All processes call it
                equally often, since it may run a sharded teacher; one without a shard of its own repeats
                the last.
        """
        missing, rank, size = self.missing(), processes.rank(), processes.world_size()
        for first in range(0, len(missing), size):
            place = first + rank
            index = missing[min(place, len(missing) - 1)]
            tensors, captions = make(index)
            if place < len(missing):
                self._write(self.files[index], tensors, captions)
            logger.info("made %d of %d shards of paths", min(first + size, len(missing)), len(missing))
        processes.barrier()

    def _write(self, file: Path, tensors: dict[str, Tensor], captions: list[str]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        half = {name: t.half().contiguous().cpu() for name, t in tensors.items()}
        with whole_file(file) as temporary:
            save_file(half, temporary, metadata={"captions": json.dumps(captions), KEY: self.origin})

    def read(self, count: int, rng: random.Random) -> tuple[dict[str, Tensor], list[str]]:
        """`count` samples of one shard, drawn without repetition: float32 tensors and captions."""
        with safe_open(rng.choice(self.files), "pt") as file:
            captions = json.loads(file.metadata()["captions"])
            chosen = sorted(rng.sample(range(len(captions)), count))
            tensors = {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                rows = file.get_slice(name)
                tensors[name] = torch.cat([rows[i : i + 1].float() for i in chosen])
        return tensors, [captions[i] for i in chosen]
