"""The rows of the study: which networks of a recipe are compared, and how each streams.

The stages tell by their settings what they are, not by their names. Compared are stages of kind dmd that
differ in the reward's weight only. Stages that differ in nothing but `train.seed` are trainings of one
network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pyrf.training.recipe import RecipeError
from pyrf.training.scratch.recipe import DmdRecipe, ScratchRecipe

FULL_INVERSE_BETA = 2.0
"""The paper's 1 / b."""
FULL, DMD = "Re-DMD, 1/b = 2, EMA sink .999 (full)", "DMD (1/b = 0)"
STATIC, NO_SINK = "DMD, static sink", "DMD, no sink"
BEFORE = "before distillation by distribution"


@dataclass(frozen=True)
class Variant:
    """One row of the study.

    Attributes:
        networks: the stages that trained it: one, or several that differ in their seed.
        sink: whether the window has one; without it, the ring takes its room.
        alpha: of the EMA; 1 never changes the sink.
        dtype: of network and cache.
        master: whether the sink keeps what the dtype cannot hold.
    """

    name: str
    networks: tuple[str, ...]
    sink: bool = True
    alpha: float = 0.999
    dtype: torch.dtype = torch.float32
    master: bool = True


def variants_of(recipe: ScratchRecipe) -> list[Variant]:
    """The rows that the stages of a recipe can fill, in the order of the page.

    Raises:
        RecipeError: when no stage distils by matching distributions.
    """
    stages = {
        name: stage
        for name, stage in recipe.stages.items()
        if isinstance(stage, DmdRecipe) and stage.stream is None
    }
    if not stages:
        raise RecipeError("the study compares stages of kind dmd, and the recipe has none")
    first = next(iter(stages.values()))
    trainings: dict[tuple[float, str], tuple[str, ...]] = {}
    for name, stage in stages.items():
        if _shared(stage) == _shared(first):
            key = weight_of(stage)
            trainings[key] = (*trainings.get(key, ()), name)
    full, dmd = trainings.pop((FULL_INVERSE_BETA, "exp"), ()), trainings.pop((0.0, "exp"), ())
    rows = [
        Variant(FULL, full),
        Variant(DMD, dmd),
        Variant(STATIC, dmd, alpha=1.0),
        Variant(NO_SINK, dmd, sink=False),
        *(Variant(f"full, alpha {text}", full, alpha=float(text)) for text in (".99", ".9", ".5")),
        *(Variant(_name(*key), names) for key, names in sorted(trainings.items(), key=_order)),
        Variant("full in bf16, float32-exact sink", full, dtype=torch.bfloat16),
        Variant("full in bf16, plain bf16 sink", full, dtype=torch.bfloat16, master=False),
        Variant(BEFORE, (first.init,)),
    ]
    return [row for row in rows if row.networks]


def weight_of(stage: DmdRecipe) -> tuple[float, str]:
    """1 / b, which is 0 without a reward, and how the reward weighs."""
    dmd = stage.dmd
    inverse_beta = 0.0 if dmd.reward is None else dmd.inverse_beta
    return inverse_beta, dmd.weighting if inverse_beta else "exp"


def _shared(stage: DmdRecipe) -> dict[str, object]:
    """All that stages have in common which are compared."""
    return stage.model_dump(exclude={"train": {"seed"}, "dmd": {"reward", "inverse_beta", "weighting"}})


def _name(inverse_beta: float, weighting: str) -> str:
    return f"Re-DMD{', advantage' if weighting == 'advantage' else ''}, 1/b = {inverse_beta:g}"


def _order(entry: tuple[tuple[float, str], tuple[str, ...]]) -> tuple[bool, float]:
    (inverse_beta, weighting), _ = entry
    return weighting == "advantage", inverse_beta
