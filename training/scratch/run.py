"""One run's folder: what its stages share, and what each leaves for those after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pyrf.config import StreamConfig
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.training.scratch.codec_files import load_codec
from pyrf.training.scratch.latents import Encoder, LatentScenes, encode_scenes
from pyrf.training.scratch.linear_codec import encoder_of
from pyrf.training.scratch.networks import ScratchTextToVideo, load_network
from pyrf.worlds.world import World

CODEC = "codec"
"""The stage that makes what encodes the scenes."""
FIRST_SCENE = 5 * 10**7
"""Seed of the first encoded scene; held-out prompts draw from other generators."""


@dataclass(frozen=True)
class Run:
    """A run in `folder`. Stages keep their files in folders of their names, which are read when asked for.

    Attributes:
        num_scenes: encoded scenes that all stages after the codec share.
        device: where networks and codecs are.
    """

    folder: Path
    world: World
    stream: StreamConfig
    num_scenes: int
    device: torch.device

    @cached_property
    def codec(self) -> TAEHVCodec:
        """What encodes the scenes, see `codec_of`."""
        return self.codec_of(CODEC)

    @cached_property
    def scenes(self) -> LatentScenes:
        """The encoded scenes, which are made on the CPU where they are missing."""
        return encode_scenes(self.encoder, self.world, self.num_scenes, FIRST_SCENE, self.folder / "scenes")

    @property
    def encoder(self) -> Encoder:
        """Of the codec; where that is linear, as a faster form of it."""
        network = load_codec(self.folder / CODEC).eval()
        return encoder_of(network) or network

    def codec_of(self, stage: str) -> TAEHVCodec:
        """The codec that a stage left.

        Raises:
            FileNotFoundError: when the stage has not been run.
        """
        return TAEHVCodec(load_codec(self.folder / stage).to(self.device))

    def network_of(self, stage: str) -> ScratchTextToVideo:
        """The network that a stage left.

        Raises:
            FileNotFoundError: when the stage has not been run.
        """
        return load_network(self.folder / stage, self.world.vocabulary).to(self.device)
