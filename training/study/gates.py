"""Whether the study's claim can hold or fail: three gates on the stages of a run, one after the other.

A weight on samples can change where a student ends only under conditions (`objectives/dmd.py`). A study that
was run without them says nothing about Re-DMD:

    reward   what students are matched with moves better than the student before distillation, and few of its
             clips are broken
    spread   that student is narrower in motion than it: speeds over the seeds of one caption spread less
    critic   the critic of a stage that was run has converged

`clips.py` says what clips are. Intervals are of 95 %.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pyrf.evaluation.bootstrap import Array, bootstrap_distribution, percentile_interval
from pyrf.evaluation.report.measures import wilson
from pyrf.files import whole_file
from pyrf.printing import counted
from pyrf.training.recipe import RecipeError
from pyrf.training.runner.host_state import of_a_training
from pyrf.training.runner.origin import fingerprint
from pyrf.training.scratch.networks import NETWORK
from pyrf.training.scratch.recipe import DmdRecipe, ScratchRecipe
from pyrf.training.stages.reward import load_reward
from pyrf.training.study.clips import Clips
from pyrf.training.study.critic import critic_losses
from pyrf.training.study.study import measured

logger = logging.getLogger(__name__)

GATES = ("reward", "spread", "critic")
"""In the order in which they are measured."""
MOST_BROKEN = 0.05
MOST_ABOVE = 0.02
"""Share of the fresh critic's loss by which the stage's critic may be above it."""
RESAMPLES = 2000
"""Of the bootstrap."""


@dataclass(frozen=True)
class GateSettings:
    """How much is measured.

    Attributes:
        prompts: clips of teacher and student each, for the reward.
        captions, seeds: clips of each for the spread, `seeds` of each of `captions`.
        rollouts: on which critics are compared.
        critic_steps: of the fresh critic at most.
    """

    prompts: int = 96
    captions: int = 16
    seeds: int = 8
    rollouts: int = 64
    critic_steps: int = 300

    def __post_init__(self) -> None:
        least = {"prompts": 2, "captions": 2, "seeds": 2, "rollouts": 2, "critic_steps": 1}
        for name, count in least.items():
            if getattr(self, name) < count:
                option = name.replace("_", "-")
                raise ValueError(f"gates need {option} of {count} at least, got {getattr(self, name)}")


@dataclass(frozen=True)
class Figure:
    """A number with its interval; `unit` is "share" for what is printed in percent."""

    name: str
    value: float
    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True)
class Gate:
    """What was measured at a gate.

    Attributes:
        claim: that must hold.
        note: on what it was measured.
    """

    name: str
    claim: str
    passed: bool
    note: str
    figures: tuple[Figure, ...]


def run_gates(
    recipe: ScratchRecipe, folder: Path, stage: str, critic: str, settings: GateSettings
) -> Iterator[Gate]:
    """Measure, or read back, the gates in turn, and end at the first that is not passed.

    Args:
        folder: of the run; gates are kept in its folder `gates`.
        stage: of kind dmd and with a reward, whose student and teacher are looked at before it is run.
        critic: stage of kind dmd that was run, whose critic is looked at.

    Raises:
        RecipeError: when a stage is not there, of another kind, without a reward, or the two do not match.
        FileNotFoundError: when a stage before one of them, or for the last gate `critic`, was not run.
        ValueError: when no clip, or too few, can be scored.
    """
    world = measured(recipe)
    about = _stage_of(recipe, stage, "--stage")
    if about.dmd.reward is None:
        rewarded = [name for name, other in recipe.stages.items() if _has_reward(other)]
        raise RecipeError(
            f"stage {stage} has no reward to compare; name one that has with --stage: "
            f"{', '.join(rewarded) or 'the recipe has none'}"
        )
    watched = _stage_of(recipe, critic, "--critic")
    if (watched.init, watched.teacher) != (about.init, about.teacher):
        raise RecipeError(
            f"stages {stage} and {critic} differ in init or teacher: their gates are not the same"
        )
    codec = recipe.run_in(folder).codec.network
    networks = [folder / name / NETWORK for name in (about.teacher, about.init)]
    for path in networks:
        if not path.exists():
            raise FileNotFoundError(
                f"{path.parent} holds no {NETWORK}; run the stage {path.parent.name} first"
            )

    def key(*counts: object) -> str:
        return fingerprint(*networks, codec, about.dmd, about.stream or recipe.stream, world, counts)[:16]

    newest = sorted((folder / critic / "checkpoints").glob("step-*"))[-1:]
    marks = (
        key(settings.prompts),
        key(settings.captions, settings.seeds),
        key(watched, newest, settings.rollouts, settings.critic_steps),
    )
    with of_a_training(0, recipe.threads * recipe.processes):
        clips = Clips(recipe, about, folder, world)
        measures: tuple[Callable[[], Gate], ...] = (
            lambda: _reward(clips, settings),
            lambda: _spread(clips, settings),
            lambda: _critic(recipe, critic, folder, settings),
        )
        for name, mark, measure in zip(GATES, marks, measures):
            file = folder / "gates" / f"{name}-{mark}.json"
            if file.exists():
                gate = _read(file)
            else:
                logger.info("gate %s", name)
                gate = measure()
                file.parent.mkdir(exist_ok=True)
                with whole_file(file) as temporary:
                    temporary.write_text(json.dumps(asdict(gate), indent=2) + "\n")
            yield gate
            if not gate.passed:
                return


def _stage_of(recipe: ScratchRecipe, name: str, option: str) -> DmdRecipe:
    recipe.check_stage(name)
    stage = recipe.stages[name]
    if not isinstance(stage, DmdRecipe):
        raise RecipeError(f"{option} names a stage of kind dmd; {name} is of kind {stage.stage}")
    return stage


def _has_reward(stage: object) -> bool:
    return isinstance(stage, DmdRecipe) and stage.dmd.reward is not None


def _read(file: Path) -> Gate:
    values = json.loads(file.read_text())
    return Gate(**{**values, "figures": tuple(Figure(**figure) for figure in values["figures"])})


def _reward(clips: Clips, settings: GateSettings) -> Gate:
    assert clips.stage.dmd.reward is not None
    reward, world = load_reward(clips.stage.dmd.reward), clips.world
    prompts = [p.text for p in world.held_out(settings.prompts, open_speed=True)]
    rewards, broken = [], []
    for caption, *both in clips.of_both(prompts):
        rewards.append([float(reward(torch.from_numpy(clip)[None], [caption])[0]) for clip in both])
        broken.append([world.is_broken(clip) for clip in both])
    pairs = np.array(rewards)
    scored = pairs[np.isfinite(pairs).all(1)]
    if len(scored) < 2:
        raise ValueError(f"only {counted(len(scored), 'pair')} of {len(pairs)} could be scored by the reward")
    above = interval(scored, lambda rows: float((rows[:, 0] - rows[:, 1]).mean()))
    shares = [float(np.mean([pair[i] for pair in broken])) for i in (0, 1)]
    return Gate(
        "reward",
        "the teacher's reward is above the student's, and less than 5 % of its clips are broken",
        above[1] > 0 and shares[0] < MOST_BROKEN,
        f"{counted(len(scored), 'caption')} of open motion, a clip of {clips.latents} latent frames each",
        (
            Figure("reward of the teacher", *interval(scored, lambda rows: float(rows[:, 0].mean()))),
            Figure("reward of the student", *interval(scored, lambda rows: float(rows[:, 1].mean()))),
            Figure("teacher above student", *above),
            *(
                Figure(f"broken clips of the {who}", shares[i], *_wilson(broken, i), unit="share")
                for i, who in enumerate(("teacher", "student"))
            ),
        ),
    )


def _wilson(broken: list[list[bool]], column: int) -> tuple[float, float]:
    return wilson(sum(pair[column] for pair in broken), len(broken))


def _spread(clips: Clips, settings: GateSettings) -> Gate:
    world, seeds = clips.world, settings.seeds
    captions = [p.text for p in world.held_out(settings.captions, open_speed=True)]
    speeds = [
        [np.nan if world.is_broken(clip) else world.measure(clip)["dynamic"] for clip in both]
        for _, *both in clips.of_both([caption for caption in captions for _ in range(seeds)])
    ]
    by_caption = np.array(speeds).reshape(len(captions), seeds, 2)
    whole = by_caption[(np.isfinite(by_caption).sum(1) >= 2).all(1)]
    if len(whole) < 2:
        raise ValueError(
            f"only {len(whole)} of {counted(len(captions), 'caption')} have two clips of each network that "
            "are not broken; train teacher and student first"
        )
    left_out = float(np.isnan(by_caption).mean())
    narrower = interval(whole, lambda rows: _pooled(rows[..., 0]) - _pooled(rows[..., 1]))
    return Gate(
        "spread",
        "the student before distillation is narrower in motion than the teacher",
        narrower[1] > 0,
        f"{counted(len(whole), 'caption')} of open motion, {seeds} seeds; "
        f"{100 * left_out:.0f} % of the clips are broken and left out",
        (
            Figure("spread of the teacher", *interval(whole, lambda rows: _pooled(rows[..., 0])), "px/s"),
            Figure("spread of the student", *interval(whole, lambda rows: _pooled(rows[..., 1])), "px/s"),
            Figure("teacher above student", *narrower, "px/s"),
            *(
                Figure(
                    f"speed of the {who}",
                    *interval(whole[..., i], lambda rows: float(np.nanmean(rows))),
                    "px/s",
                )
                for i, who in enumerate(("teacher", "student"))
            ),
        ),
    )


def _pooled(speeds: Array) -> float:
    """Standard deviation over the seeds, pooled over the captions: [captions, seeds], NaN left out."""
    counts = np.isfinite(speeds).sum(1)
    within = np.nanvar(speeds, axis=1) * counts
    return float(np.sqrt(within.sum() / (counts - 1).sum()))


def _critic(recipe: ScratchRecipe, name: str, folder: Path, settings: GateSettings) -> Gate:
    found = critic_losses(recipe, name, folder, settings.rollouts, settings.critic_steps)
    rows = np.stack([found.own, found.fresh, found.start], axis=1)
    above = interval(rows, lambda r: float(r[:, 0].mean() / r[:, 1].mean()) - 1)
    bounded = "" if found.fresh_steps == found.steps else ", which is less than the critic of the stage"
    return Gate(
        "critic",
        "the critic's loss is less than 2 % above that of a fresh one on the same student",
        above[2] < MOST_ABOVE,
        f"stage {name} after {counted(found.steps, 'step')} of its critic, "
        f"{counted(found.rollouts, 'rollout')}; the fresh critic took {found.fresh_steps}{bounded}",
        (
            Figure("loss of the critic", *interval(rows, lambda r: float(r[:, 0].mean()))),
            Figure("loss of a fresh critic", *interval(rows, lambda r: float(r[:, 1].mean()))),
            Figure("loss before any step", *interval(rows, lambda r: float(r[:, 2].mean()))),
            Figure("critic above fresh", *above, unit="share"),
        ),
    )


def interval(rows: Array, statistic: Callable[[Array], float]) -> tuple[float, float, float]:
    """A statistic of rows, and its 95 % interval by the bootstrap over them."""
    drawn = bootstrap_distribution(statistic, rows, resamples=RESAMPLES, rng=np.random.default_rng(0))
    low, high = percentile_interval(drawn)
    return statistic(rows), float(low), float(high)


def table(gates: list[Gate]) -> str:
    """Markdown: a row per figure, and the verdict at each gate's first."""
    lines = ["| gate | figure | value | 95 % | passed |", "|---|---|---|---|---|"]
    for gate in gates:
        for number, f in enumerate(gate.figures):
            value, low, high = (_shown(f, x) for x in (f.value, f.low, f.high))
            name, passed = (gate.name, "yes" if gate.passed else "no") if number == 0 else ("", "")
            lines.append(f"| {name} | {f.name} | {value} | {low} to {high} | {passed} |")
    return "\n".join(lines)


def _shown(figure: Figure, value: float) -> str:
    if figure.unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.4g} {figure.unit}".rstrip()
