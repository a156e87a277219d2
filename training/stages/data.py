"""What the distilling stages learn from: captions, starts of teacher paths, and how students are judged.

A world's scenes and Wan's prompts each offer these; the stages know no more of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.dit.model import PromptCache
from pyrf.training.runner.stage import Draw
from pyrf.training.stages.networks import TextToVideo

Given = dict[str, Tensor]
"""What networks are shown or told beside the noisy latents, [B, ...] each."""


class Data(Protocol):
    """Captions without videos."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of a latent frame, [C, h, w]."""
        ...

    def captions(self, draw: Draw) -> list[str]:
        """One for each of the draw's samples."""
        ...

    def turns(self, draw: Draw) -> tuple[list[str], list[str]]:
        """Captions before and after a prompt's turn: one of each for each of the draw's samples."""
        ...

    def score(
        self, network: TextToVideo, codec: Codec, stream: StreamConfig, count: int, sheet: Path
    ) -> dict[str, Any]:
        """Stream `count` held-out prompts: numbers and videos to log; pictures go to `sheet`."""
        ...


@dataclass(frozen=True)
class PathStart:
    """Where teacher paths begin.

    Attributes:
        noise: [B, F, C, h, w].
        captions: B of them.
        given: kept with the paths; its `weights` [B, chunks] are those of the loss.
    """

    noise: Tensor
    captions: list[str]
    given: Given


class Paths(Protocol):
    """How teacher and student see the clips of the ODE stage."""

    @property
    def chunk_frames(self) -> int: ...

    def start(self, index: int) -> PathStart:
        """The `index`-th batch of starts, always the same."""
        ...

    def teach(
        self,
        network: TextToVideo,
        x: Tensor,
        timesteps: Tensor,
        prompt: PromptCache,
        given: Given,
    ) -> Tensor:
        """The teacher's velocity of x [B, F, C, h, w] at timesteps [B, F]."""
        ...

    def learn(
        self,
        network: TextToVideo,
        x: Tensor,
        timesteps: Tensor,
        prompt: PromptCache,
        given: Given,
    ) -> Tensor:
        """The student's, under the mask of a stream."""
        ...
