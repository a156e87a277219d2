"""Whether a critic has converged: its loss against that of a fresh one, on rollouts that neither has seen.

The student stands still at the checkpoint. A fresh critic starts where the stage's began, at the teacher's
weights, and learns from rollouts of this student as the stage's critic did, for as many steps. If it ends
lower, the stage's critic had not caught up with its student.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyrf.training.objectives.critic import critic_loss
from pyrf.training.runner import checkpoints
from pyrf.training.runner.origin import fingerprint
from pyrf.training.runner.precision import products
from pyrf.training.runner.stage import Draw, Stage, TrainSettings
from pyrf.training.runner.trainer import train
from pyrf.training.scratch.networks import load_network
from pyrf.training.scratch.recipe import DmdRecipe, ScratchRecipe
from pyrf.training.stages.dmd import DmdStage, StudentAndCritic
from pyrf.training.stages.networks import TextToVideo

FIRST_HELD_OUT = 10**9
"""Seed of the first rollouts to compare on; trainings draw from smaller ones."""
LEVELS = 4
"""Draws of noise levels for each rollout."""


class FreshCritic(Stage[StudentAndCritic]):
    """A critic alone, of a student that stands still."""

    def __init__(self, dmd: DmdStage) -> None:
        self.dmd, self.module = dmd, dmd.module
        self.module.student.requires_grad_(False)
        self.module.critic.load_state_dict(dmd.teacher.state_dict())

    def hidden_parameters(self) -> Iterable[nn.Parameter]:
        return self.module.critic.hidden_parameters()

    def is_averaged(self, name: str) -> bool:
        return False

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        return self.dmd.critic_loss(draw)

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        return {}

    def export(self, folder: Path) -> None:
        self.module.critic.save(folder)


@dataclass(frozen=True)
class Losses:
    """Mean losses of batches of rollouts, [batches] each.

    Attributes:
        start: of a critic that has learned nothing, which is the teacher.
        rollouts: of all batches.
        steps: that the stage's critic took; `fresh_steps` the fresh one.
    """

    own: NDArray[np.float64]
    fresh: NDArray[np.float64]
    start: NDArray[np.float64]
    rollouts: int
    steps: int
    fresh_steps: int


def critic_losses(recipe: ScratchRecipe, name: str, folder: Path, rollouts: int, most_steps: int) -> Losses:
    """Losses of a stage's critic at its last checkpoint, of a fresh one and of one that has learned nothing.

    The fresh one's training resumes where it was stopped. It is kept in a folder beside the stage's.

    Args:
        name: of the stage, of kind dmd.
        rollouts: to compare on, at least.
        most_steps: of the fresh critic.

    Raises:
        FileNotFoundError: when the stage has no checkpoint, or one before it was not run.
        ValueError: when the checkpoint is of a stage of other sizes, or before the critic's first step.
    """
    recipe_stage = recipe.stages[name]
    assert isinstance(recipe_stage, DmdRecipe)
    newest = checkpoints.latest(folder / name / "checkpoints")
    if newest is None:
        raise FileNotFoundError(
            f"{folder / name} holds no checkpoint, and the critic is kept there only; train the stage first"
        )
    step = checkpoints.read_progress(newest)["step"]
    steps = sum(1 for i in range(step) if i % (1 + recipe_stage.dmd.critic_steps))
    if not steps:
        raise ValueError(f"{newest} is from before the critic's first step; train the stage for longer")
    fresh_steps = min(steps, most_steps)

    run = recipe.run_in(folder)
    unrewarded = recipe_stage.dmd.model_copy(update={"reward": None})  # no critic asks for it

    def build() -> DmdStage:
        stage = recipe_stage.model_copy(update={"dmd": unrewarded}).build(run, name)
        checkpoints.load(newest, {f"module/{key}": value for key, value in stage.module.state_dict().items()})
        return stage

    stage = build()
    key = fingerprint(stage.module.student, recipe_stage, recipe.stream)[:16]
    fresh_folder = folder / "gates" / f"critic-{key}"
    train(lambda: FreshCritic(build()), _alone(recipe_stage.train, fresh_steps), fresh_folder)
    fresh = load_network(fresh_folder, run.world.vocabulary).to(run.device)
    networks = (stage.module.critic, fresh, stage.teacher)
    batches = range(max(2, -(-rollouts // stage.batch)))
    half = recipe_stage.train.autocast
    found = np.array([_batch_losses(stage, networks, number, half) for number in batches])
    own, other, start = found.T
    return Losses(own, other, start, len(batches) * stage.batch, steps, fresh_steps)


def _alone(settings: TrainSettings, steps: int) -> TrainSettings:
    """How the critic was trained, but for what concerns the student; few steps are not worth compiling."""
    scale = {part: factor for part, factor in settings.lr_scale.items() if part.startswith("critic")}
    return settings.model_copy(update={"steps": steps, "lr_scale": scale, "compile": False})


@torch.no_grad()
def _batch_losses(stage: DmdStage, networks: Iterable[TextToVideo], number: int, half: bool) -> list[float]:
    """The losses of networks on one batch of rollouts, with the same noise."""
    generator = torch.Generator("cpu").manual_seed(FIRST_HELD_OUT + number)
    rng, shared = random.Random(f"held out {number}"), random.Random(f"held out {number}")
    draw = Draw(0, range(stage.batch), generator, rng, shared)
    with products(stage.teacher.dit.device, half=half):
        x0, captions = stage.watched(draw)
        return [_loss(network.eval(), x0, captions, stage.stream.shift, number) for network in networks]


def _loss(network: TextToVideo, x0: Tensor, captions: list[str], shift: float, seed: int) -> float:
    generator = torch.Generator("cpu").manual_seed(seed)
    prompt = network.prompt(captions)
    losses = [
        critic_loss(lambda x, t: network.dit(x, t, prompt), x0, shift, generator) for _ in range(LEVELS)
    ]
    return float(torch.stack(losses).mean())
