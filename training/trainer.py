"""The loop that all stages share: steps, schedule, weight average, checkpoints, resume."""

from __future__ import annotations

import json
import logging
import random
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pyrf.models.dit import Block
from pyrf.training import parallel
from pyrf.training.optim import Muon, split_parameters, weight_average

logger = logging.getLogger(__name__)


class TrainSettings(BaseModel):
    """How long and how fast to train.

    Attributes:
        steps: the learning rate is constant after the warm-up and falls linearly over the last
            `decay` share; so a run can be made longer or shorter when it is resumed.
        lr: Muon's learning rate, for hidden matrices; AdamW's is `adam_lr`.
        ema: decay of the weight average that is evaluated and shipped.
        compile: compile the blocks of a DiT: a minute at the start, a fifth less time a step.
    """

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    lr: float = Field(gt=0)
    adam_lr: float = Field(gt=0)
    warmup: int = 50
    decay: float = Field(default=0.3, ge=0, le=1)
    ema: float = Field(default=0.998, ge=0, lt=1)
    clip: float = 1.0
    seed: int = 0
    compile: bool = True
    checkpoint_minutes: float = 3.0
    eval_minutes: float = 10.0


class Stage(ABC):
    """What is trained and on what. A batch depends on settings, step and rank only: resuming is exact."""

    module: nn.Module

    def is_hidden(self, name: str) -> bool:
        """Whether a matrix of this name is a hidden one, which Muon updates."""
        return True

    @abstractmethod
    def loss(
        self, step: int, generator: torch.Generator, rng: random.Random
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch and numbers to log; all randomness is from `generator` and `rng`."""

    @abstractmethod
    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        """Score the averaged weights; pictures go to `folder`."""

    @abstractmethod
    def export(self, module: nn.Module, folder: Path) -> None:
        """Write what the next stage reads."""


def save_atomically(value: object, path: Path) -> None:
    """torch.save to a temporary file beside `path`, then rename."""
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    temporary.replace(path)


def lr_factor(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, constant, linear decay to 2 %."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    left = (settings.steps - step) / max(1.0, settings.decay * settings.steps)
    return warm * max(0.02, min(1.0, left))


def train(stage: Stage, settings: TrainSettings, folder: Path) -> nn.Module:
    """Run or resume a stage in `folder`; returns the averaged module and exports it.

    Raises:
        FloatingPointError: when the loss is not finite; the last checkpoint is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = stage.module
    hidden, rest = split_parameters(module, stage.is_hidden)
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.AdamW(rest, settings.adam_lr, betas=(0.9, 0.98), weight_decay=0.0), settings.adam_lr)
    ]
    if hidden:
        optimizers.append((Muon(hidden, settings.lr), settings.lr))
    average = weight_average(module, settings.ema)
    if settings.compile:
        for part in module.modules():
            if isinstance(part, Block):
                part.compile(dynamic=False)
    step, seconds = 0, 0.0

    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        for (optimizer, _), saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, seconds = state["step"], state["seconds"]
        logger.info("resumed %s at step %d", folder, step)
        if step >= settings.steps:
            return average.module

    def save() -> None:
        if parallel.rank() > 0:
            return
        state = {
            "module": module.state_dict(),
            "average": average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in optimizers],
            "step": step,
            "seconds": seconds,
        }
        save_atomically(state, checkpoint)

    def log(record: dict[str, Any]) -> None:
        if parallel.rank() > 0:
            return
        record = {"step": step, "seconds": round(seconds, 1), **record}
        logger.info("%s", "  ".join(f"{k} {_short(v)}" for k, v in record.items()))
        with (folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def evaluate_and_export() -> None:
        if parallel.rank() == 0:
            with torch.no_grad(), parallel.all_threads():
                log(stage.evaluate(average.module.eval(), folder, step))
            stage.export(average.module, folder)
        parallel.barrier()

    smoothed: dict[str, float] = {}
    last_save = last_eval = seconds
    while step < settings.steps:
        started = time.perf_counter()
        factor = lr_factor(step, settings)
        for optimizer, lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
        seed = (settings.seed * 1_000_003 + step) * parallel.world_size() + parallel.rank()
        module.train()
        loss, metrics = stage.loss(step, torch.Generator().manual_seed(seed), random.Random(seed))
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} at step {step}; the last checkpoint is {checkpoint}"
            )
        loss.backward()
        parallel.average_gradients(module.parameters())
        norm = nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update_parameters(module)
        step += 1
        seconds = parallel.from_first(seconds + time.perf_counter() - started)
        for key, value in {"loss": loss.item(), "grad_norm": norm.item(), **metrics}.items():
            smoothed[key] = 0.97 * smoothed.get(key, value) + 0.03 * value
        if step % 50 == 0:
            log({**smoothed, "lr": factor, "s_per_step": time.perf_counter() - started})
        if seconds - last_save > 60 * settings.checkpoint_minutes:
            save()
            last_save = seconds
        if seconds - last_eval > 60 * settings.eval_minutes:
            evaluate_and_export()
            last_eval = seconds
    evaluate_and_export()
    save()  # last: a checkpoint of the final step says that all is done
    return average.module


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
