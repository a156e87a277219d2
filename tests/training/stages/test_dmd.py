"""The stage that distils: rollouts, the reward's weight, and what is left out of training."""

import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.models.dit.model import PromptCache
from pyrf.models.dit.rollout import ModelRollout
from pyrf.training.runner import processes
from pyrf.training.runner.stage import Draw
from pyrf.training.runner.trainer import Training
from pyrf.training.scratch.latents import LatentScenes
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.training.stages.dmd import DmdSettings, DmdStage
from pyrf.training.stages.reward import Reward
from pyrf.worlds.shapes.captions import vocabulary
from pyrf.worlds.shapes.world import ShapesWorld
from tests.support import networks
from tests.support.line_stage import settings

BATCH = 3
SIZES = NetworkSettings(dim=32, ffn_dim=64, num_heads=2, num_layers=2)
SCENES = LatentScenes(ShapesWorld(), range(4), *(torch.zeros(4, n, 16, 4, 6) for n in (9, 6, 6)))


def network(seed: int) -> ScratchTextToVideo:
    torch.manual_seed(seed)
    model = ScratchTextToVideo(SIZES, vocabulary())
    torch.nn.init.normal_(model.dit.head.head.weight, std=0.1)
    return model


def stage(reward: Reward | None = None, **settings: Any) -> DmdStage:
    return DmdStage(
        DmdSettings(chunks=4, critic_steps=2, **settings),
        teacher=network(0),
        critic=network(1),
        student=network(2),
        data=SCENES,
        codec=networks.codec(),
        stream=StreamConfig(shift=3.0),
        batch=BATCH,
        reward=reward,
    )


def gradient(trained: DmdStage, step: int = 0) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Gradients of a student's and a critic's matrix after one batch of fixed draws."""
    generator, rng, shared = torch.Generator().manual_seed(0), random.Random(0), random.Random(0)
    loss, metrics = trained.loss(Draw(step, range(BATCH), generator, rng, shared))
    loss.backward()
    student, critic = (
        getattr(trained.module, name).get_submodule("dit.blocks.0.ffn.0").weight.grad
        for name in ("student", "critic")
    )
    zero = torch.zeros(SIZES.ffn_dim, SIZES.dim)
    return zero if student is None else student, zero if critic is None else critic, metrics


def fixed(*scores: float) -> Reward:
    return lambda frames, prompts: torch.tensor(scores)


def test_a_step_trains_the_student_or_the_critic() -> None:
    student, critic, _ = gradient(stage(), step=0)
    assert student.abs().max() > 0
    assert critic.abs().max() == 0
    for step in (1, 2):
        student, critic, _ = gradient(stage(), step)
        assert student.abs().max() == 0
        assert critic.abs().max() > 0


def test_micro_batches_of_a_step_have_one_length_and_one_exit_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all processes, and another one in other steps: else some wait for those that go further."""
    exits: list[int] = []

    def next_chunk(rollout: ModelRollout, draw: Callable[[], Tensor], exit_step: int) -> Tensor:
        exits.append(exit_step)
        return draw()

    monkeypatch.setattr(ModelRollout, "next_chunk", next_chunk)
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    trained = stage()
    training = Training(trained, settings(batch=BATCH, global_batch=4 * BATCH), tmp_path)
    seen: list[list[int]] = []
    for step in range(24):
        training.progress.step = step
        rolled = []
        for rank in range(2):
            monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
            for micro in range(training.accumulate):
                draw = training._draw(micro)
                trained.rollout(trained.module.student, SCENES.captions(draw), draw)
                rolled.append(exits.copy())
                exits.clear()
        assert len(set(rolled[0])) == 1
        assert rolled == [rolled[0]] * 4
        seen.append(rolled[0])
    assert {steps[0] for steps in seen} == {0, 1, 2, 3}
    assert {len(steps) for steps in seen} == {3, 4}  # from the window to `chunks`


def test_the_prompt_turns_where_the_window_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks before it have the first captions; teacher and critic have those of after the turn."""
    seen: list[str] = []
    trained = stage(turns=1.0)
    scenes, told = trained.data, trained.module.student.prompt

    def turns(draw: Draw) -> tuple[list[str], list[str]]:
        first, last = scenes.turns(draw)
        assert first != last
        return ["before"] * BATCH, ["after"] * BATCH

    trained.data = SimpleNamespace(latent_shape=scenes.latent_shape, turns=turns)
    prompts: dict[str, PromptCache] = {}
    monkeypatch.setattr(
        trained.module.student, "prompt", lambda captions: prompts.setdefault(captions[0], told(captions))
    )
    for name, network in (("teacher", trained.teacher), ("critic", trained.module.critic)):
        monkeypatch.setattr(network, "prompt", partial(_noted, network.prompt, seen, name))
    next_chunk = ModelRollout.next_chunk

    def chunk(rollout: ModelRollout, draw: Callable[[], Tensor], exit_step: int) -> Tensor:
        seen.append(next(name for name, prompt in prompts.items() if prompt is rollout.prompt))
        return next_chunk(rollout, draw, exit_step)

    monkeypatch.setattr(ModelRollout, "next_chunk", chunk)
    student, _, _ = gradient(trained)
    assert student.abs().max() > 0
    assert seen == ["before", "after", "after", "after", "teacher after", "critic after"]
    seen.clear()
    gradient(trained, step=1)
    assert seen == ["before", "after", "after", "after", "critic after"]


def _noted(prompt: Callable[[list[str]], Any], seen: list[str], name: str, captions: list[str]) -> Any:
    seen.append(f"{name} {captions[0]}")
    return prompt(captions)


def test_a_turn_needs_a_chunk_before_the_window() -> None:
    with pytest.raises(ValidationError, match="turns needs a chunk before the window"):
        DmdSettings(chunks=3, turns=0.5)


def test_a_reward_of_zero_is_dmd_and_an_equal_one_scales_it() -> None:
    plain, _, _ = gradient(stage())
    assert torch.equal(gradient(stage(fixed(0.0, 0.0, 0.0)))[0], plain)
    raised, _, metrics = gradient(stage(fixed(0.5, 0.5, 0.5), inverse_beta=2.0))
    torch.testing.assert_close(raised, math.e * plain)
    assert metrics["reward"] == 0.5
    ignored, _, _ = gradient(stage(fixed(3.0, -1.0, 0.5), inverse_beta=0.0))
    torch.testing.assert_close(ignored, plain)


def test_advantages_are_of_rollouts_of_one_caption() -> None:
    told: list[list[str]] = []

    def reward(frames: Tensor, prompts: list[str]) -> Tensor:
        told.append(prompts)
        return torch.tensor([1.0, 2.0, 3.0])

    _, _, metrics = gradient(stage(reward, weighting="advantage", turns=1.0))
    [prompts] = told
    assert len(prompts) == BATCH
    assert len(set(prompts)) == 1
    assert metrics["reward_std"] == pytest.approx(math.sqrt(2 / 3))
    # the same rollouts, of which all earn alike, are DMD
    alike, _, _ = gradient(stage(fixed(2.0, 2.0, 2.0), weighting="advantage"))
    unweighed, _, _ = gradient(stage(fixed(2.0, 2.0, 2.0), weighting="advantage", inverse_beta=0.0))
    torch.testing.assert_close(alike, unweighed)
    apart, _, _ = gradient(stage(fixed(1.0, 2.0, 3.0), weighting="advantage"))
    assert not torch.allclose(apart, unweighed)


def test_a_lone_rollout_has_no_advantage() -> None:
    parts = dict.fromkeys(("teacher", "critic", "student", "data", "codec", "stream"))
    with pytest.raises(ValueError, match="raise batch to 2, got 1"):
        DmdStage(DmdSettings(weighting="advantage"), **parts, batch=1)  # type: ignore[arg-type]


def test_what_cannot_be_scored_is_counted_and_not_trained_on() -> None:
    first, _, _ = gradient(stage(fixed(0.0, math.nan, math.nan)))
    last, _, _ = gradient(stage(fixed(math.nan, math.nan, 0.0)))
    two, _, metrics = gradient(stage(fixed(0.0, math.nan, 0.0)))
    assert metrics["skipped"] == 1
    torch.testing.assert_close(two, (first + last) / 2, rtol=1e-4, atol=1e-7)
    none, _, metrics = gradient(stage(fixed(*[math.nan] * BATCH)))
    assert metrics["skipped"] == BATCH
    assert "reward" not in metrics
    assert none.abs().max() == 0


def test_the_reward_sees_the_rollout_as_frames_and_gives_no_gradient() -> None:
    seen: list[tuple[Tensor, list[str]]] = []

    def reward(frames: Tensor, prompts: list[str]) -> Tensor:
        seen.append((frames, prompts))
        assert not torch.is_grad_enabled()
        return frames.float().mean((1, 2, 3, 4))

    trained = stage(reward, inverse_beta=1e-3)
    gradient(trained)
    [(frames, prompts)] = seen
    assert frames.dtype == torch.uint8
    assert list(frames.shape) == [BATCH, 33, 32, 48, 3]  # nine latent frames
    assert len(prompts) == BATCH


@pytest.mark.parametrize("wrong", [{"critic_steps": 0}, {"chunks": 2}, {"inverse_beta": -1.0}, {"b": 2.0}])
def test_refuses_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DmdSettings(**wrong)
