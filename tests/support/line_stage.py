"""A stage of a few numbers, for tests of the loop: matrices that learn to double noise, or two in turn."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyrf.training.runner.stage import Draw, Stage, TrainSettings


class Line(Stage[nn.ModuleDict]):
    """Two matrices; by default trained together, with `turns` one of them in each step.

    Args:
        before: called with each `Draw`, to interfere.
        at_evaluation: called when it is evaluated.
        width: of the matrices.
    """

    def __init__(
        self,
        *,
        turns: bool = False,
        before: Callable[[Draw], float | None] = lambda draw: None,
        at_evaluation: Callable[[], None] = lambda: None,
        width: int = 4,
    ) -> None:
        torch.manual_seed(0)
        self.turns, self.before, self.at_evaluation, self.width = turns, before, at_evaluation, width
        self.module = nn.ModuleDict({"student": nn.Linear(width, width), "critic": nn.Linear(width, width)})
        self.evaluated: list[dict[str, Tensor]] = []

    def is_averaged(self, name: str) -> bool:
        return name.startswith("student.")

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        factor = self.before(draw)
        x = torch.stack(
            [torch.randn(self.width, generator=torch.Generator().manual_seed(n)) for n in draw.samples]
        )
        names = ["student", "critic"] if not self.turns else [("critic", "student")[draw.step % 3 == 0]]
        loss = sum((self.module[name](x) - 2 * x).square().mean() for name in names)
        assert isinstance(loss, Tensor)
        return loss * (1.0 if factor is None else factor), {}

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        self.at_evaluation()
        self.evaluated.append({name: p.clone() for name, p in self.module.named_parameters()})
        return {"threads": torch.get_num_threads()}

    def export(self, folder: Path) -> None:
        (folder / "exported").touch()


def settings(**changes: Any) -> TrainSettings:
    """Few steps, a checkpoint after each."""
    values: dict[str, Any] = {"steps": 4, "batch": 2, "lr": 0.02, "adam_lr": 0.02, "warmup": 0, "decay": 0.0}
    values |= {"compile": False, "checkpoint_minutes": 0, "eval_minutes": 60, "log_steps": 1, "keep": 10}
    return TrainSettings(**(values | changes))


def draw_of(step: int) -> Draw:
    """The draw of a step in a run of one sample per step."""
    generator = torch.Generator().manual_seed(step)
    return Draw(step, range(step, step + 1), generator, random.Random(step), random.Random(step))


def die(draw: Draw, step: int) -> None:
    """End this process as `kill -9` does."""
    if draw.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
