"""A text-to-video network as stages see it, and a stage that trains one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from pyrf.models.dit.model import PromptCache, WanModel
from pyrf.training.runner.stage import Stage


class TextToVideo(nn.Module, ABC):
    """A DiT and what turns captions into its prompts; whether that is trained too is the subclass's own."""

    dit: WanModel

    @abstractmethod
    def prompt(self, captions: list[str]) -> PromptCache:
        """Cross-attention keys and values of captions, with a gradient; "" stands for no caption."""

    @abstractmethod
    def encode(self, captions: list[str]) -> Tensor:
        """Text rows [B, text_len, text_dim] of captions as a stream has them, without a gradient."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what the next stage reads, whole or not at all; every process that evaluates calls it."""

    def hidden_parameters(self) -> Iterable[nn.Parameter]:
        """Those of blocks, but for the biases that are looked up by position."""
        return [p for name, p in self.named_parameters() if "blocks." in name and "pos_embedding" not in name]


class NetworkStage(Stage[TextToVideo]):
    """A stage that trains one network and leaves it behind."""

    def hidden_parameters(self) -> Iterable[nn.Parameter]:
        return self.module.hidden_parameters()

    def export(self, folder: Path) -> None:
        self.module.save(folder)
