"""One run's folder: what its stages share, and what each leaves for those after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyrf.config import StreamConfig
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.training.scratch.block_codec import LINEAR
from pyrf.training.scratch.codec_files import load_codec
from pyrf.training.scratch.latents import Encoder, LatentScenes, encode_scenes
from pyrf.training.scratch.linear_codec import load_linear
from pyrf.training.scratch.networks import ScratchTextToVideo, load_network
from pyrf.worlds.world import World

FIRST_SCENE = 5 * 10**7
"""Seed of the first encoded scene; held-out prompts draw from other generators."""


@dataclass(frozen=True)
class Run:
    """A run in `folder`. Stages keep their files in folders of their names, which are read when asked for.

    Attributes:
        num_scenes: encoded scenes that all stages after the codec share.
    """

    folder: Path
    world: World
    stream: StreamConfig
    num_scenes: int

    @cached_property
    def codec(self) -> TAEHVCodec:
        """What encodes the scenes, see `codec_of`."""
        return self.codec_of("codec")

    @cached_property
    def scenes(self) -> LatentScenes:
        """The encoded scenes, which are made where they are missing."""
        return encode_scenes(self.encoder, self.world, self.num_scenes, FIRST_SCENE, self.folder / "scenes")

    @property
    def encoder(self) -> Encoder:
        """Of the codec; where that began as a linear one, this does the same in a tenth of the time."""
        linear = self.folder / "codec" / LINEAR
        return load_linear(linear) if linear.exists() else self.codec.network

    def codec_of(self, stage: str) -> TAEHVCodec:
        """The codec that a stage left.

        Raises:
            FileNotFoundError: when the stage has not been run.
        """
        return TAEHVCodec(load_codec(self.folder / stage))

    def network_of(self, stage: str) -> ScratchTextToVideo:
        """The network that a stage left.

        Raises:
            FileNotFoundError: when the stage has not been run.
        """
        return load_network(self.folder / stage, self.world.vocabulary)
