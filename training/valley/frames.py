"""Single frames of many scenes with what they show, drawn once and kept on disk for the detector."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf.files import whole_file
from pyrf.worlds.valley.attributes import FPS, HEIGHT, WIDTH
from pyrf.worlds.valley.detector_network import CELL, CLASSES, MAP_CLASSES
from pyrf.worlds.valley.scene import Scene
from pyrf.worlds.valley.world import Valley

logger = logging.getLogger(__name__)

SHARD = 250
"""Scenes of a file."""
FRAMES = 2
"""Of each scene, LATER frames apart."""
LATER = 60
UNSURE = 255
"""A cell of the map from which nothing is to be learnt."""


@dataclass(frozen=True)
class LabelledFrames:
    """Frames and labels.

    Attributes:
        frames: uint8 [N, 3, 96, 160].
        classes: int64 [N, 4] in the order of CLASSES.
        maps: uint8 [N, 24, 40], numbers of MAP_CLASSES, or UNSURE.
    """

    frames: Tensor
    classes: Tensor
    maps: Tensor

    def __len__(self) -> int:
        return len(self.frames)


def balloon_map(scene: Scene, time: int) -> Tensor:
    """Where the balloon's middle is: uint8 [24, 40]. Its rim, and a balloon behind the ground, are unsure.

    A middle a little off the screen counts at the nearest place on it.
    """
    rows, columns = HEIGHT // CELL, WIDTH // CELL
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32, device="cpu") * CELL + CELL / 2,
        torch.arange(columns, dtype=torch.float32, device="cpu") * CELL + CELL / 2,
        indexing="ij",
    )
    labels = torch.zeros(rows, columns, dtype=torch.uint8, device="cpu")
    for at_x, at_y in scene.balloons(time):
        near_x, near_y = min(WIDTH - 4.0, max(4.0, at_x)), max(4.0, at_y)
        distance = ((x - near_x).square() + (y - near_y).square()).sqrt()
        labels[distance < 19] = UNSURE
        off_screen = max(abs(near_x - at_x), abs(near_y - at_y))
        if off_screen < 13 and at_y < scene.horizon + 44:
            labels[distance < 10] = MAP_CLASSES.index(scene.attributes.balloon)
    return labels


def _draw(world: Valley, seed: int) -> Iterator[tuple[Tensor, list[int], Tensor]]:
    scene = world.scene(seed)
    first = random.Random(f"frames {seed}").randrange(60 * FPS)
    for time in range(first, first + FRAMES * LATER, LATER):
        frame = F.avg_pool2d(scene.draw(time, 1).float(), 2).round().byte()[0]
        classes = [values.index(getattr(scene.attributes, name)) for name, values in CLASSES.items()]
        yield frame, classes, balloon_map(scene, time)


def labelled_frames(world: Valley, scenes: int, first_seed: int, folder: Path) -> LabelledFrames:
    """Frames of `scenes` scenes, a multiple of SHARD, by shards; those that are there are read back."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(first_seed, first_seed + scenes, SHARD):
        file = folder / f"{first}.safetensors"
        if not file.exists():
            drawn = [part for seed in range(first, first + SHARD) for part in _draw(world, seed)]
            frames, classes, maps = zip(*drawn)
            with whole_file(file) as temporary:
                save_file(
                    {
                        "frames": torch.stack(frames),
                        "classes": torch.tensor(classes, dtype=torch.int64, device="cpu"),
                        "maps": torch.stack(maps),
                    },
                    temporary,
                )
            logger.info("drew frames of scenes %d..%d", first, first + SHARD - 1)
        shards.append(load_file(file))
    return LabelledFrames(
        *(torch.cat([shard[name] for shard in shards]) for name in ("frames", "classes", "maps"))
    )
