"""The study measures what its columns say, resumes, and draws the paper's comparisons."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pyrf import cli
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize
from pyrf.training.kinds import load_scratch_recipe
from pyrf.training.recipe import RecipeError
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.training.scratch.recipe import ScratchRecipe
from pyrf.training.study import study
from pyrf.training.study.report import ORDERINGS, scaled, verdict
from pyrf.training.study.study import PlainSinkRollout
from pyrf.training.study.variants import BEFORE, DMD, FULL, NO_SINK, STATIC, variants_of
from pyrf.worlds.shapes.attributes import FPS, Attributes
from pyrf.worlds.shapes.captions import vocabulary
from pyrf.worlds.shapes.scenes import Scene
from pyrf.worlds.shapes.world import ShapesWorld
from tests.support import networks

WORLD = ShapesWorld()
RED = Attributes("red", "square", "large", "right", "fast", "grey")


def clip(attributes: Attributes, frames: int = 96) -> np.ndarray:
    return Scene.sample(attributes, random.Random(0)).render(0, frames)


def test_columns_of_true_clips() -> None:
    fast, slow = WORLD.measure(clip(RED)), WORLD.measure(clip(replace(RED, speed="slow")))
    assert 1.7 * FPS < fast["dynamic"] < 2.3 * FPS
    assert 0.35 * FPS < slow["dynamic"] < 0.6 * FPS
    for columns in (fast, slow):
        assert columns["drift"] < 2
        assert columns["permanence"] == 1


def test_what_vanishes_or_jumps_is_not_permanent_and_drifts() -> None:
    video = clip(RED)
    gone = video.copy()
    gone[40:64] = gone[0, 0, 0]
    lost = WORLD.measure(gone)
    assert lost["permanence"] == pytest.approx(2 / 3)
    assert lost["drift"] > 10
    jumping = np.concatenate([video[:40], np.roll(video[40:], 30, axis=2)])
    assert WORLD.measure(jumping)["permanence"] == pytest.approx(2 / 3)


def test_prompts_ask_for_motion_and_leave_its_speed_open() -> None:
    prompts = WORLD.held_out(40, open_speed=True)
    assert {p.asks["speed"] for p in prompts} == {None}
    assert {p.asks["motion"] for p in prompts} == {"right", "left", "up", "down", "bounce"}
    assert any(p.asks["speed"] for p in WORLD.held_out(40))


def test_a_plain_bfloat16_sink_stands_still_where_the_exact_one_moves() -> None:
    recipe = load_scratch_recipe("tiny")
    torch.manual_seed(0)
    dit = ScratchTextToVideo(NetworkSettings(dim=32, ffn_dim=64, num_heads=2, num_layers=1), vocabulary()).dit
    dit = dit.to(torch.bfloat16).eval()
    stream = recipe.stream
    changed = {}
    for kind in (TorchRollout, PlainSinkRollout):
        prompt = torch.zeros(1, dit.config.text_len, dit.config.text_dim)
        rollout = kind(dit, stream, 1, LatentSize(4, 6), prompt)
        generator = torch.Generator().manual_seed(0)
        for chunk in range(40):
            rollout.begin_chunk()
            rollout.clean(torch.randn(1, 3, 16, 4, 6, generator=generator))
            if chunk == 0:
                first = rollout.cache.values[0][:, :, : rollout.cache.tokens].clone()
        last = rollout.cache.values[0][:, :, : rollout.cache.tokens]
        changed[kind] = float((last != first).float().mean())
    assert changed[TorchRollout] > 0.9
    assert changed[PlainSinkRollout] < 0.75


def test_a_folder_without_stages_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["eval", "study", "--out", str(tmp_path / "typo")]) == 2
    assert "holds none of the stages redmd, dmd" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which one of two variants was trained, with random weights."""
    torch.manual_seed(0)
    sizes = NetworkSettings(dim=32, ffn_dim=64, num_heads=2, num_layers=1)
    for stage in ("decoder", "dmd"):
        (tmp_path / stage).mkdir()
    ScratchTextToVideo(sizes, vocabulary()).save(tmp_path / "dmd")
    codec = networks.codec().network
    (tmp_path / "decoder" / "config.json").write_text(json.dumps(codec.config.to_dict()))
    weights = {name: tensor.contiguous() for name, tensor in codec.state_dict().items()}
    save_file(weights, tmp_path / "decoder" / "diffusion_pytorch_model.safetensors")
    monkeypatch.setattr(study, "variants_of", lambda recipe: variants_of(recipe)[:2])
    return tmp_path


def test_the_command_measures_what_was_trained_and_goes_on(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = runs / "docs" / "study.md"
    page.parent.mkdir()
    command = ["eval", "study", "--out", str(runs), "--prompts=2", "--seconds=5", "--page", str(page)]
    assert cli.run([*command, "--seeds=1"]) == 0
    monkeypatch.setattr(study, "ProcessPoolExecutor", None)  # what is on disk is not measured again
    assert cli.run([*command, "--seeds=1"]) == 0
    text = page.read_text()
    [row] = [line for line in text.splitlines() if line.startswith(f"| {DMD} |")]
    assert "± 0.00" in row
    assert "| copying, % |" in text
    assert f"| {FULL} | not trained |" in text
    assert "--prompts 2 --seconds 5 --seeds 1" in text
    assert (page.parent / "img" / "study.png").stat().st_size > 1000
    assert cli.run([*command, "--seeds=0"]) == 2
    assert "a seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("full", "dmd", "answer"),
    [
        ((20.0, 22.0), (10.0, 11.0), "reproduced"),
        ((10.0, 11.0), (20.0, 22.0), "the other way round"),
        ((20.0, 24.0), (21.0, 22.0), "within the spread"),
        ((20.0,), (10.0,), "one seed"),
        (None, (1.0, 1.0), "not measured"),
    ],
)
def test_verdicts(full: tuple[float, ...] | None, dmd: tuple[float, ...], answer: str) -> None:
    results = {
        name: {} if values is None else {name: [{"dynamic": value} for value in values]}
        for name, values in ((FULL, full), (DMD, dmd))
    }
    assert verdict(results, ORDERINGS[0]).startswith(answer)


def test_orderings_name_variants() -> None:
    names = {variant.name for variant in variants_of(load_scratch_recipe("tiny"))}
    assert {name for o in ORDERINGS for name in (o.higher, o.lower)} <= names


def recipe_with(**stages: dict[str, object]) -> ScratchRecipe:
    """The valley's, with more stages that are as `redmd` but for these settings."""
    values = load_scratch_recipe("valley").model_dump(mode="json")
    for name, settings in stages.items():
        stage = json.loads(json.dumps(values["stages"]["redmd"]))
        for key, value in settings.items():
            stage[key] = {**stage[key], **value} if isinstance(value, dict) else value
        values["stages"][name.replace("_", "-")] = stage
    return ScratchRecipe.model_validate(values)


def test_variants_are_what_the_settings_of_stages_say() -> None:
    recipe = recipe_with(
        again={"train": {"seed": 1}},
        plain={"dmd": {"reward": None}, "train": {"seed": 1}},
        softly={"dmd": {"inverse_beta": 1.0}},
        grouped={"dmd": {"weighting": "advantage"}},
        unlike={"dmd": {"guidance_scale": 3.0}},
    )
    found = {variant.name: variant for variant in variants_of(recipe)}
    assert found[FULL].networks == ("redmd", "again")
    assert found[DMD].networks == ("dmd", "plain")
    assert found[STATIC].networks == found[NO_SINK].networks == ("dmd", "plain")
    assert found["Re-DMD, 1/b = 1"].networks == ("softly",)
    assert found["Re-DMD, advantage, 1/b = 2"].networks == ("grouped",)
    assert found[BEFORE].networks == ("ode",)
    named = {network for variant in found.values() for network in variant.networks}
    assert named.isdisjoint({"unlike", "two-steps"})


def test_a_recipe_without_matching_has_no_variants() -> None:
    values = load_scratch_recipe("tiny").model_dump(mode="json")
    values["stages"] = {name: s for name, s in values["stages"].items() if s["stage"] != "dmd"}
    with pytest.raises(RecipeError, match="stages of kind dmd, and the recipe has none"):
        variants_of(ScratchRecipe.model_validate(values))


def test_the_spread_is_that_of_trainings_where_there_are_several() -> None:
    one = {"dmd": [{"drift": 1.0}, {"drift": 3.0}]}
    assert scaled(one, "drift") == pytest.approx((2.0, 2**0.5))
    two = one | {"again": [{"drift": 2.0}, {"drift": 4.0}]}
    assert scaled(two, "drift") == pytest.approx((2.5, 0.5**0.5))
    assert scaled({"dmd": [{"motion": 0.5}]}, "motion") == (50.0, 0.0)


def test_ways_to_stream_are_compared_on_the_trainings_that_both_have() -> None:
    static = {"dmd": [{"drift": 3.0}, {"drift": 3.2}]}
    ema = {"dmd": [{"drift": 1.0}, {"drift": 1.2}], "again": [{"drift": 9.0}, {"drift": 9.2}]}
    assert verdict({STATIC: static, DMD: ema}, ORDERINGS[2]).startswith("reproduced: 3.10 against 1.10")
