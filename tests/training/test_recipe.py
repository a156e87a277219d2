"""The whole tiny chain, a few steps a stage; resume; and recipes that cannot be run."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from safetensors.torch import load_file
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from pyrf.training import checkpoints
from pyrf.training.recipe import Recipe, RecipeError, load_recipe
from pyrf.training.run import run_stage


def small_recipe() -> Recipe:
    """The bundled recipe with everything cut down; two steps a stage."""
    values = load_recipe("tiny").model_dump(mode="json")
    values |= {"scenes": 10, "processes": 1}
    for name in ("codec", "decoder"):
        small = {"encoder_width": 8, "decoder_widths": [8, 8, 8, 8], "blocks": 1}
        values["stages"][name]["codec"] |= small
    values["stages"]["chunk"]["network"] |= {"dim": 32, "ffn_dim": 32, "num_heads": 2, "num_layers": 1}
    for name in ("redmd-1", "redmd-3", "redmd-5"):  # as redmd, but for a number
        del values["stages"][name]
    for stage in values["stages"].values():
        stage["train"] |= {"steps": 2, "batch": 2, "checkpoint_minutes": 0, "compile": False}
        for key in ("teacher", "causal", "ode", "dmd"):
            if isinstance(stage.get(key), dict):
                stage[key] |= {"eval_prompts": 6}
    values["stages"]["ode"]["ode"] |= {"paths": 2, "steps_per_jump": 1}
    return Recipe.model_validate(values)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage has run."""
    folder = tmp_path_factory.mktemp("tiny")
    recipe = small_recipe()
    for name in recipe.stages:
        run_stage(recipe, name, folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "network.safetensors")


def test_each_stage_learns_from_the_one_before(trained: Path) -> None:
    """Every stage moves the weights it took over, by a little."""
    chain = ["chunk", "teacher", "causal", "ode", "redmd"]
    for before, after in pairwise(chain):
        a, b = weights(trained / before), weights(trained / after)
        assert a.keys() == b.keys()
        moved = max(float((a[k] - b[k]).abs().max()) for k in a)
        assert 0 < moved < 1, (before, after, moved)


@pytest.mark.parametrize("stage", ["codec", "chunk", "ode", "redmd"])
def test_resume_is_exact(trained: Path, tmp_path: Path, stage: str) -> None:
    """Two steps, a stop and two more give the weights that four steps give, bit for bit."""
    recipe = small_recipe()
    recipe.stages[stage].train.warmup = 0
    results = []
    for run, pauses in (("straight", [4]), ("resumed", [2, 4])):
        folder = tmp_path / run
        folder.mkdir()
        for name in ("codec", "scenes", "chunk", "causal", "score", "ode"):
            if name != stage:
                (folder / name).symlink_to(trained / name)
        for steps in pauses:
            # the schedule sees the final length from the start, as after a kill
            recipe.stages[stage].train.steps = 4
            stop_at(recipe, stage, folder, steps)
        results.append(checkpoint_tensors(folder / stage))
    straight, resumed = results
    assert straight.keys() == resumed.keys()
    for key, value in straight.items():
        assert torch.equal(value, resumed[key]), key


def checkpoint_tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.latest(folder / "checkpoints")
    assert path is not None
    tensors: dict[str, torch.Tensor] = {}
    _load_state_dict(
        tensors, storage_reader=dcp.FileSystemReader(path), planner=_EmptyStateDictLoadPlanner(), no_dist=True
    )
    return tensors


def stop_at(recipe: Recipe, stage: str, folder: Path, steps: int) -> None:
    """Run a stage and kill it after the checkpoint of `steps` steps."""

    class KilledError(Exception):
        pass

    original = checkpoints.save

    def save_then_die(folder: Path, step: int, *rest: Any) -> Path:
        path = original(folder, step, *rest)
        if step == steps < recipe.stages[stage].train.steps:
            raise KilledError
        return path

    with pytest.MonkeyPatch.context() as patch, suppress(KilledError):
        patch.setattr(checkpoints, "save", save_then_die)
        run_stage(recipe, stage, folder)


def test_stages_ask_for_the_ones_before(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the codec stage first"):
        run_stage(small_recipe(), "chunk", tmp_path)
    with pytest.raises(RecipeError, match="no stage 'coder'; its stages are codec, chunk"):
        run_stage(small_recipe(), "coder", tmp_path)


def test_recipes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe 'tinny'; bundled are tiny"):
        load_recipe("tinny")
    values = load_recipe("tiny").model_dump(mode="json")
    values["stages"]["codec"]["train"]["stepps"] = 3
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(
        RecipeError, match=r"stages\.codec\.codec\.train: unknown key 'stepps'; did you mean 'steps'\?$"
    ):
        load_recipe(str(path))
    path.write_text("stages: [")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(str(path))
