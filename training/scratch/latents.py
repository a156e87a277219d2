"""Encoded scenes of the world, made once and kept on disk for the later stages."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.evaluation.held_out import score_streams
from pyrf.evaluation.streams import Student
from pyrf.files import whole_file
from pyrf.loop.inference import inference
from pyrf.models.codecs.codec import Codec
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT
from pyrf.training.runner import processes
from pyrf.training.runner.origin import KEY, fingerprint, origin_of
from pyrf.training.runner.stage import Draw
from pyrf.training.scratch.clips import LONGEST_SECONDS, WARM_LATENTS, to_tensor
from pyrf.training.stages.networks import TextToVideo
from pyrf.video.strips import contact_sheet
from pyrf.worlds.world import Scene, Turn, World, draw_scene

STRETCHES = ("near", "far", "turned")
logger = logging.getLogger(__name__)

NEAR, FAR = 9, 6
"""Latents of the first stretch (three chunks) and of a later one (two chunks) of each scene."""
TURN_AT, TURNED = 6, 6
"""The latent of the first stretch at which one attribute turns, and how many follow from there."""


@dataclass(frozen=True)
class LatentScenes:
    """Latents of scenes.

    Attributes:
        seeds: of the scenes.
        near: [scenes, NEAR, C, h, w] float16, from a random time.
        far: [scenes, FAR, C, h, w] float16, up to LONGEST_SECONDS later.
        turned: [scenes, TURNED, C, h, w] float16, what follows `near[:, :TURN_AT]` where one attribute turns.
    """

    world: World
    seeds: Sequence[int]
    near: Tensor
    far: Tensor
    turned: Tensor

    def __len__(self) -> int:
        return len(self.near)

    @cached_property
    def subjects(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where subjects are in `near`, `far` and `turned`: bool [scenes, latents, h, w]."""
        size = self.near.shape[3:]
        cells: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for seed in self.seeds:
            for found, (scene, begin, latents) in zip(cells, _stretches(self.world, seed)):
                found.append(subject_cells(self.world, scene, begin, latents, *size))
        near, far, turned = (torch.stack(found) for found in cells)
        return near, far, turned

    def caption(self, index: int, rng: random.Random) -> str:
        """A fresh wording for one scene."""
        return self.world.scene(self.seeds[index]).caption(rng)

    def frames_of(self, index: int, latent: int) -> tuple[Scene, int]:
        """One scene, and its frame at which a latent of `near` begins."""
        scene, begin, _ = _times(self.world, self.seeds[index])
        return scene, begin + FRAMES_PER_LATENT * (WARM_LATENTS + latent)

    def turned_caption(self, index: int, rng: random.Random) -> str:
        """A fresh wording for one scene after its turn, which names what has turned."""
        return _turn(self.world, self.seeds[index]).caption(rng)

    def of_open_speed(self) -> LatentScenes:
        """The scenes that move, and whose captions name no speed.

        Raises:
            ValueError: when there are none.
        """
        chosen = [i for i, seed in enumerate(self.seeds) if self.world.scene(seed).speed_is_open]
        if not chosen:
            raise ValueError(f"none of {len(self)} scenes moves at an open speed; add motions or scenes")
        latents = (stretch[chosen] for stretch in (self.near, self.far, self.turned))
        return LatentScenes(self.world, [self.seeds[i] for i in chosen], *latents)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.near.shape[2:]
        return channels, height, width

    def captions(self, draw: Draw) -> list[str]:
        """Captions of scenes drawn at random."""
        return [self.caption(draw.rng.randrange(len(self)), draw.rng) for _ in draw.samples]

    def turns(self, draw: Draw) -> tuple[list[str], list[str]]:
        """Captions of scenes drawn at random, before and after their turn."""
        rng = draw.rng
        chosen = [rng.randrange(len(self)) for _ in draw.samples]
        return [self.caption(i, rng) for i in chosen], [self.turned_caption(i, rng) for i in chosen]

    def score(
        self, network: TextToVideo, codec: Codec, stream: StreamConfig, count: int, sheet: Path
    ) -> dict[str, Any]:
        """What the world's judge says of streams, and the first two of them."""
        student = Student(network.dit, network.encode, codec, stream)
        scores, videos = score_streams(student, self.world, count)
        contact_sheet(videos, sheet)
        return {**scores, **{f"videos/{text}": video for text, video in videos[:2]}}


class _Stretch(NamedTuple):
    """What is encoded: a scene from frame `begin` on, WARM_LATENTS and `latents` more."""

    scene: Scene
    begin: int
    latents: int


def _stretches(world: World, seed: int) -> tuple[_Stretch, _Stretch, _Stretch]:
    """Those of `near`, `far` and `turned`."""
    scene, begin, later = _times(world, seed)
    return (
        _Stretch(scene, begin, NEAR),
        _Stretch(scene, later, FAR),
        _Stretch(_turn(world, seed).scene, begin + FRAMES_PER_LATENT * TURN_AT, TURNED),
    )


def _times(world: World, seed: int) -> tuple[Scene, int, int]:
    """A scene, and the frames at which its two stretches begin."""
    scene, rng = draw_scene(world, seed)
    begin = rng.randrange(20 * world.fps)
    return scene, begin, begin + rng.randrange(LONGEST_SECONDS * world.fps)


def _turn(world: World, seed: int) -> Turn:
    """The scene as it turns at the latent TURN_AT of its first stretch; where none can, as it stays."""
    scene, begin, _ = _times(world, seed)
    frame = begin + FRAMES_PER_LATENT * (WARM_LATENTS + TURN_AT)
    return world.turned(seed, frame, random.Random(f"turn {seed}")) or Turn(scene, scene.caption)


def subject_cells(world: World, scene: Scene, first: int, latents: int, height: int, width: int) -> Tensor:
    """Cells that subjects touch in the latents after WARM_LATENTS: bool [latents, height, width]."""
    rows = (torch.arange(height, dtype=torch.float32, device="cpu")[:, None] + 0.5) * (world.height / height)
    columns = (torch.arange(width, dtype=torch.float32, device="cpu") + 0.5) * (world.width / width)
    half = 0.5 * world.height / height
    cells = torch.zeros(latents, height, width, dtype=torch.bool, device="cpu")
    for number in range(latents):
        middle = first + FRAMES_PER_LATENT * (WARM_LATENTS + number) + FRAMES_PER_LATENT // 2
        for x, y, radius in scene.subjects(middle):
            cells[number] |= (rows - y).square() + (columns - x).square() < (radius + half) ** 2
    return cells


class Encoder(Protocol):
    """What encodes a video [B, 4F, 3, H, W] in 0..1 to latents [B, F, C, h, w]."""

    def encode(self, video: Tensor, /) -> Tensor: ...


@inference()
def encode_scenes(codec: Encoder, world: World, count: int, first_seed: int, path: Path) -> LatentScenes:
    """Encode `count` scenes, a multiple of 10, by shards of 250.

    Shards that are in `path` are read back; those of another codec, world or size are made again.
    """
    path.mkdir(parents=True, exist_ok=True)
    size = min(250, count)
    origin = fingerprint(codec, world, size, NEAR, FAR, TURNED)
    files = [path / f"{first_seed + start}.safetensors" for start in range(0, count, size)]
    for i, file in enumerate(files):
        if i % processes.world_size() != processes.rank():
            continue
        if not file.exists() or origin_of(file) != origin:
            start = i * size
            parts: dict[str, list[Tensor]] = {name: [] for name in STRETCHES}
            for seed in range(first_seed + start, first_seed + start + size, 10):
                drawn = [_stretches(world, s) for s in range(seed, seed + 10)]
                for name, stretches in zip(STRETCHES, zip(*drawn)):
                    clips = [
                        scene.render(begin, FRAMES_PER_LATENT * (WARM_LATENTS + latents))
                        for scene, begin, latents in stretches
                    ]
                    parts[name].append(codec.encode(to_tensor(clips))[:, WARM_LATENTS:].half())
            with whole_file(file) as temporary:
                save_file(
                    {name: torch.cat(latents) for name, latents in parts.items()}, temporary, {KEY: origin}
                )
            logger.info("encoded scenes %d..%d", first_seed + start, first_seed + start + size - 1)
    processes.barrier()
    shards = [load_file(file) for file in files]
    latents = (torch.cat([shard[name] for shard in shards])[:count] for name in STRETCHES)
    return LatentScenes(world, range(first_seed, first_seed + count), *latents)
