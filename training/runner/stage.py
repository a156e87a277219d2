"""What a stage is: what is trained and on what. Its settings, its draws, its interface."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pyrf.settings import Settings

M = TypeVar("M", bound=nn.Module)
_Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainSettings(Settings):
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps. The learning rate is constant after the warm-up and falls linearly over the
            last `decay` share; so a run can be made longer or shorter when it is resumed.
        batch: samples of a micro-batch in each process.
        global_batch: samples of a step over all processes; gradients of micro-batches are accumulated until
            there are as many. By default each process has one micro-batch per step.
        lr: Muon's learning rate, for hidden matrices; AdamW's is `adam_lr`. Without it all is AdamW's.
        lr_scale: factors on the learning rates of parts, by the beginning of their parameters' names.
        ema: decay of the weight average that is evaluated and shipped.
        ema_start: the step until which the average is the weights themselves; by default it averages from
            the first step on, and follows quickly at first.
        max_skips: steps in a row that may be skipped because loss or gradient is not finite.
        compile: compile the blocks of a DiT: a minute at the start, a fifth less time per step.
        autocast: compute products of matrices, and Muon's iteration, in bfloat16; weights and sums stay
            float32. It pays on GPUs, and where the processor has instructions for it (AMX).
        keep: how many checkpoints are kept.
    """

    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    global_batch: int | None = Field(default=None, gt=0)
    lr: float | None = Field(default=None, gt=0)
    adam_lr: float = Field(gt=0)
    lr_scale: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    betas: tuple[_Beta, _Beta] = (0.9, 0.98)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=50, ge=0)
    decay: float = Field(default=0.3, ge=0, le=1)
    ema: float = Field(default=0.998, ge=0, lt=1)
    ema_start: int | None = Field(default=None, ge=0)
    clip: float = Field(default=1.0, gt=0)
    max_skips: int = Field(default=10, ge=0)
    seed: int = 0
    compile: bool = True
    autocast: bool = False
    keep: int = Field(default=2, gt=0)
    checkpoint_minutes: float = Field(default=3.0, ge=0)
    eval_minutes: float = Field(default=10.0, ge=0)
    log_steps: int = Field(default=50, gt=0)

    def accumulate(self, processes: int) -> int:
        """Micro-batches of a step in each of `processes`.

        Raises:
            ValueError: when they do not make up the global batch.
        """
        if self.global_batch is None:
            return 1
        count, rest = divmod(self.global_batch, self.batch * processes)
        if rest or not count:
            raise ValueError(
                f"global_batch {self.global_batch} must be a multiple of batch {self.batch} x "
                f"{processes} processes"
            )
        return count


@dataclass(frozen=True)
class Draw:
    """One micro-batch: where it stands in the run, and all its randomness.

    Attributes:
        step: of the optimiser; micro-batches of all processes share it.
        samples: numbers of its samples in the run's endless order, which does not depend on the number of
            processes, only on the global batch.
        generator, rng: its own random states, on the CPU.
        shared: a random state that begins alike in all micro-batches of a step, in all processes.
    """

    step: int
    samples: range
    generator: torch.Generator
    rng: random.Random
    shared: random.Random


class Stage(ABC, Generic[M]):
    """What is trained and on what. A batch depends on settings and on its `Draw` only: resuming is exact.

    Parts that are trained in turn (a critic, its student) are one module: the loss of a step reaches one of
    them, and only parameters with a gradient are clipped, updated and averaged in that step.
    """

    module: M

    def hidden_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of hidden layers; Muon updates those of them that are matrices or kernels."""
        return self.module.parameters()

    def is_averaged(self, name: str) -> bool:
        """Whether the parameter of this name is evaluated and exported, and so has a weight average."""
        return True

    @abstractmethod
    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of one micro-batch's samples, and numbers to log."""

    @abstractmethod
    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        """Score the module, which now holds the averaged weights; pictures go to `folder`.

        Numbers it returns are logged, and so are videos, uint8 [T, H, W, 3]. Runs in the first process, or
        in all of them when the module is sharded.
        """

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what the next stage reads. Runs where `evaluate` does."""
