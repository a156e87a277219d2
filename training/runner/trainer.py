"""The loop that all stages share: micro-batches, schedule, weight average, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pyrf.machine import peak_rss_mib
from pyrf.models.dit.layers import Block
from pyrf.training.runner import checkpoints, processes, stopping
from pyrf.training.runner.finite import DivergedError, check_finite
from pyrf.training.runner.logbook import Logbook
from pyrf.training.runner.optim import Optimizers, Rates, WeightAverage
from pyrf.training.runner.precision import products
from pyrf.training.runner.stage import Draw, Stage, TrainSettings

logger = logging.getLogger(__name__)


def lr_factor(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, constant, linear decay to 2 %."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    left = (settings.steps - step) / max(1.0, settings.decay * settings.steps)
    return warm * max(0.02, min(1.0, left))


@dataclass
class Progress:
    """How far a run is; stored with a checkpoint.

    Attributes:
        seconds: of training until now, by the first process's clock.
        skipped: steps whose loss or gradient was not finite; `in_a_row` counts the last of them.
        smoothed: running means of what is logged.
        done: all steps were taken, and what came of them is exported.
    """

    step: int
    seconds: float
    skipped: int
    in_a_row: int
    smoothed: dict[str, float]
    done: bool = False


class Training:
    """One stage under way.

    Args:
        folder: of its checkpoints, logs and pictures.

    Raises:
        ValueError: when the global batch does not split among the processes.
    """

    def __init__(self, stage: Stage[Any], settings: TrainSettings, folder: Path) -> None:
        self.stage, self.settings, self.folder = stage, settings, folder
        self.module: nn.Module = stage.module
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.sharded = any(isinstance(p, DTensor) for p in self.parameters)
        self.accumulate = settings.accumulate(processes.world_size())
        rates = Rates(
            settings.lr,
            settings.adam_lr,
            settings.betas,
            settings.weight_decay,
            settings.lr_scale,
            torch.bfloat16 if settings.autocast else torch.float32,
        )
        self.optimizers = Optimizers(self.module, stage.hidden_parameters(), rates)
        averaged = [name for name in self.optimizers.names.values() if stage.is_averaged(name)]
        self.average = WeightAverage(self.module, averaged, settings.ema, settings.ema_start)
        self.progress = Progress(0, 0.0, 0, 0, {})
        if settings.compile:
            for part in self.module.modules():
                if isinstance(part, Block):
                    part.compile(dynamic=False)

    def _weights(self) -> dict[str, Tensor]:
        return {
            **{f"module/{name}": tensor for name, tensor in self.module.state_dict().items()},
            **{f"average/{name}": tensor for name, tensor in self.average.average.items()},
        }

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            DivergedError: when a tensor of it is not finite; the checkpoints before it stay.
        """
        tensors = self._weights() | {f"optimizer/{k}": v for k, v in self.optimizers.state().items()}
        self._check(tensors)
        checkpoints.save(
            self.folder / "checkpoints", self.progress.step, tensors, vars(self.progress), self.settings.keep
        )

    def _check(self, tensors: dict[str, Tensor]) -> None:
        step = self.progress.step
        what = f"{self.folder}: step {step} is not kept, the checkpoint before it is"
        check_finite(tensors, what, everywhere=True)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: when it is of a module of other sizes.
        """
        prefix = "optimizer/"
        saved = [name.removeprefix(prefix) for name in checkpoints.names(path) if name.startswith(prefix)]
        room = self.optimizers.make_state(saved)
        checkpoints.load(path, self._weights() | {prefix + name: t for name, t in room.items()})
        self.progress = Progress(**checkpoints.read_progress(path))
        logger.info("resumed %s at step %d", self.folder, self.progress.step)

    def run(self) -> None:
        """All steps that are left, and the export.

        Raises:
            DivergedError: when too many steps in a row were not finite, or weights are not.
            SystemExit: with code 0, after SIGTERM and a checkpoint.
        """
        settings, progress = self.settings, self.progress
        progress.done = False
        last_save = last_eval = progress.seconds
        with Logbook(self.folder, settings.steps, progress.step) as book, stopping.noted() as asked:
            while progress.step < settings.steps:
                started = time.perf_counter()
                numbers = self._step()
                spent = time.perf_counter() - started
                stop = self._agree(spent, asked.is_set())
                for key, value in numbers.items():
                    progress.smoothed[key] = 0.97 * progress.smoothed.get(key, value) + 0.03 * value
                book.advance(progress.step)
                if progress.step % settings.log_steps == 0:
                    factor = lr_factor(progress.step - 1, settings)
                    counts = {"lr": factor, "s_per_step": spent, "skipped_steps": progress.skipped}
                    counts["peak_gib"] = peak_gib()
                    book.record(progress.step, progress.seconds, progress.smoothed | counts)
                if stop or progress.seconds - last_save > 60 * settings.checkpoint_minutes:
                    self.save()
                    last_save = progress.seconds
                if stop:
                    logger.info("stopped by SIGTERM at step %d, after a checkpoint", progress.step)
                    raise SystemExit(0)
                if progress.seconds - last_eval > 60 * settings.eval_minutes:
                    self._evaluate_and_export(book)
                    last_eval = progress.seconds
            self._evaluate_and_export(book)
            progress.done = True
            self.save()
            if self._agree(0.0, asked.is_set()):
                raise SystemExit(0)

    def _agree(self, spent: float, stop: bool) -> bool:
        """Advance the clock that all processes share; whether SIGTERM came to any of them."""
        first, stops = processes.total([spent if processes.rank() == 0 else 0.0, float(stop)])
        self.progress.seconds += first
        return stops > 0

    def _draw(self, micro: int) -> Draw:
        """The `micro`-th micro-batch of the current step in this process."""
        step, rank, size = self.progress.step, processes.rank(), processes.world_size()
        number = (step * self.accumulate + micro) * size + rank
        run = self.settings.seed * 1_000_003 * self.accumulate * size
        batch = self.settings.batch
        return Draw(
            step,
            range(number * batch, (number + 1) * batch),
            torch.Generator("cpu").manual_seed(run + number),
            random.Random(run + number),
            random.Random(f"{self.settings.seed} {step}"),
        )

    def _step(self) -> dict[str, float]:
        """One step of the optimisers, or a skipped one; numbers to log."""
        progress = self.progress
        self.module.train()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for micro in range(self.accumulate):
            with products(self.parameters[0].device, half=self.settings.autocast):
                loss, metrics = self.stage.loss(self._draw(micro))
            (loss / self.accumulate).backward()
            for key, value in {"loss": float(loss.detach()), **metrics}.items():
                sums[key] = sums.get(key, 0.0) + value
                counts[key] = counts.get(key, 0) + 1
        sums = {key: value / counts[key] for key, value in sums.items()}
        if not self.sharded:  # sharded ones are averaged in the backward
            processes.average_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        (sums["loss"],) = (value / processes.world_size() for value in processes.total([sums["loss"]]))
        if math.isfinite(sums["loss"]) and math.isfinite(norm):
            self.optimizers.step(lr_factor(progress.step, self.settings))
            self.average.update(progress.step)
            progress.in_a_row = 0
            sums["grad_norm"] = float(norm)
        else:
            self._skip(sums["loss"], float(norm))
            sums = {}
        self.optimizers.zero_grad()
        progress.step += 1
        return sums

    def _skip(self, loss: float, norm: float) -> None:
        """Count a step that cannot be taken, and give up after too many."""
        progress, most = self.progress, self.settings.max_skips
        progress.skipped += 1
        progress.in_a_row += 1
        what = f"step {progress.step}: loss {loss:g}, gradient norm {norm:g}"
        if progress.in_a_row > most:
            raise DivergedError(
                f"{progress.in_a_row} steps in a row were not finite, the last is {what}; look at the data, "
                f"or lower the learning rate. {self.folder} keeps its last checkpoint"
            )
        logger.warning("skipped %s", what)

    def _evaluate_and_export(self, book: Logbook) -> None:
        self._check(self._weights())
        if self.sharded or processes.rank() == 0:
            threads = nullcontext() if self.sharded else processes.all_threads()
            # Shapes differ here; and without compiled blocks the compiler is not even imported.
            eager = torch.compiler.set_stance("force_eager") if self.settings.compile else nullcontext()
            with torch.no_grad(), threads, self.average.applied(), eager:
                self.module.eval()
                scores = self.stage.evaluate(self.folder, self.progress.step)
                book.record(self.progress.step, self.progress.seconds, scores)
                self.stage.export(self.folder)
        processes.barrier()


def peak_gib() -> float:
    """Most memory that this process has held: of its GPU, or without one its resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_rss_mib() / 2**10


def train(build: Callable[[], Stage[Any]], settings: TrainSettings, folder: Path) -> None:
    """Run or resume a stage in `folder`; leaves what it exports there.

    Args:
        build: makes the stage; not called when all is done.

    Raises:
        ValueError: when the checkpoint is of a stage of other sizes.
        DivergedError: when too many steps in a row were not finite, or weights are not; the last checkpoint
            is kept.
        SystemExit: with code 0, after SIGTERM and a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    newest = checkpoints.latest(folder / "checkpoints")
    if newest is not None:
        progress = Progress(**checkpoints.read_progress(newest))
        if progress.done and progress.step >= settings.steps:
            return
    training = Training(build(), settings, folder)
    if newest is not None:
        training.resume(newest)
    training.run()
