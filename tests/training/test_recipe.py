"""The whole tiny chain, a few steps a stage; resume; and recipes that cannot be run."""

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from pyrf.bundle import Shown, load_bundle
from pyrf.models.codecs.taehv import TAEHV, TAEHVConfig
from pyrf.training.kinds import load_recipe, load_scratch_recipe
from pyrf.training.recipe import RecipeError
from pyrf.training.run import run_stage
from pyrf.training.runner import checkpoints
from pyrf.training.runner.finite import DivergedError
from pyrf.training.scratch.latents import encode_scenes
from pyrf.training.scratch.recipe import ScratchRecipe
from pyrf.worlds.shapes.world import ShapesWorld


def small_recipe() -> ScratchRecipe:
    """The bundled recipe with everything cut down; two steps a stage."""
    values = load_scratch_recipe("tiny").model_dump(mode="json")
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
    return ScratchRecipe.model_validate(values)


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


def test_students_stream_in_bfloat16_as_they_learn(trained: Path, tmp_path: Path) -> None:
    recipe = small_recipe()
    recipe.stages["redmd"].train.autocast = True
    for name in ("codec", "scenes", "score", "ode"):
        (tmp_path / name).symlink_to(trained / name)
    run_stage(recipe, "redmd", tmp_path)
    halved, whole = weights(tmp_path / "redmd"), weights(trained / "redmd")
    apart = max(float((halved[k] - whole[k]).abs().max()) for k in whole)
    assert 0 < apart < 0.01


def checkpoint_tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.latest(folder / "checkpoints")
    assert path is not None
    tensors: dict[str, torch.Tensor] = {}
    _load_state_dict(
        tensors, storage_reader=dcp.FileSystemReader(path), planner=_EmptyStateDictLoadPlanner(), no_dist=True
    )
    return tensors


def test_paths_of_another_teacher_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    recipe = small_recipe()
    recipe.stages["ode"].train.steps = 4
    recipe.stages["ode"].train.batch = 3
    with pytest.raises(ValueError, match="ode/paths holds paths of another teacher or of other settings"):
        run_stage(recipe, "ode", tmp_path / "run")


def test_scenes_of_another_codec_or_number_are_encoded_again(tmp_path: Path) -> None:
    def codec(seed: int) -> TAEHV:
        torch.manual_seed(seed)
        return TAEHV(TAEHVConfig(encoder_width=8, decoder_widths=(8, 8, 8, 8), blocks=1))

    def near(seed: int, count: int, folder: str) -> torch.Tensor:
        return encode_scenes(codec(seed), ShapesWorld(), count, 7, tmp_path / folder).near

    first = near(0, 10, "kept")
    assert torch.equal(near(1, 10, "kept"), near(1, 10, "fresh"))
    assert not torch.equal(near(1, 10, "kept"), first)
    assert torch.equal(near(1, 20, "kept"), near(1, 20, "other"))


def test_the_bundle_follows_its_stages(trained: Path, tmp_path: Path) -> None:
    recipe = small_recipe()
    shutil.copytree(trained, tmp_path / "run")
    folder = tmp_path / "run"
    bundle = recipe.make_bundle(folder)
    assert bundle == folder / "bundle"
    assert recipe.make_bundle(folder) is None
    network = recipe.run_in(folder).network_of("redmd")
    network.save(folder / recipe.ship.network)
    assert recipe.make_bundle(folder) == bundle
    found, expected = load_bundle(bundle).transformer(), network.dit
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters()))
    recipe.ship.gallery = (Shown("a blue square", 3),)  # found once there was a bundle to look at
    assert recipe.make_bundle(folder) == bundle
    assert load_bundle(bundle).card.gallery == recipe.ship.gallery
    assert recipe.make_bundle(folder) is None


def test_a_bundle_stays_until_the_new_one_is_whole(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are not finite are not shipped, and a run that dies between two renames is mended."""
    recipe, folder = small_recipe(), tmp_path / "run"
    shutil.copytree(trained, folder)
    bundle = recipe.make_bundle(folder)
    assert bundle is not None
    shipped = (bundle / "model_index.json").read_bytes()

    file = folder / recipe.ship.network / "network.safetensors"
    good = load_file(file)
    name = next(iter(good))
    save_file({**good, name: torch.full_like(good[name], math.nan)}, file)
    with pytest.raises(DivergedError, match=f"ode: not shipped: {name} is not finite"):
        recipe.make_bundle(folder)
    assert (bundle / "model_index.json").read_bytes() == shipped

    save_file(good, file)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies_at(".bundle.new", Path.rename))
        with pytest.raises(KeyboardInterrupt):
            recipe.make_bundle(folder)
    assert not bundle.exists()
    file.touch()
    assert recipe.make_bundle(folder) == bundle
    assert (bundle / "model_index.json").read_bytes() == shipped
    assert not list(folder.glob(".bundle*"))


def dies_at(name: str, rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    """`Path.rename` that ends the run when it comes to a file of this name."""

    def wrapped(path: Path, target: Path) -> Path:
        if path.name == name:
            raise KeyboardInterrupt
        return rename(path, target)

    return wrapped


def stop_at(recipe: ScratchRecipe, stage: str, folder: Path, steps: int) -> None:
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


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Change one value of a recipe."""

    def change(values: dict[str, Any]) -> None:
        *keys, last = path.split("/")
        for key in keys:
            values = values[key]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stages", {}, "stages: "),
        ("stages/dmd/teacher", "nope", "stages.dmd.teacher: no stage 'nope' before it; there are causal, "),
        ("stages/teacher/init", "causal", "stages.teacher.init: no stage 'causal' before it"),
        ("stages/decoder/init", "ode", "stages.decoder.init: no stage 'ode' before it; there are codec"),
        ("stages/chunk/init", "codec", "needs either `network` or `init`"),
        ("ship/network", "odee", "ship.network: no stage 'odee' that makes one"),
        ("ship/codec", "ode", "ship.codec: no stage 'ode' that makes one; there are codec, decoder"),
        ("world/motions", ["zigzag"], r"world: world knows no motion \['zigzag'\]"),
        ("world/motion", ["left"], "world: unknown key 'motion'; did you mean 'motions'"),
        ("world", 3, "world: give the name of a world, or a mapping .*, got 3"),
        ("world/name", "ocean", "world: no world 'ocean'; there are shapes, valley"),
        ("stages/codec/codec/crop", 72, r"stages\.codec\.codec\.crop must be at most 64"),
        ("stream/sink_frames", 2, r"stream: sink_frames must be 0 or chunk_frames \(3\), got 2"),
        ("stages/chunk/network/num_heads", 5, "dim must split into heads"),
        ("stages/chunk/teacher/frames", 12, "frames: Input should be less than or equal to 9, got 12"),
        ("stages/dmd/dmd/eval_prompts", 0, "eval_prompts: Input should be greater than 0, got 0"),
        ("stages/dmd/dmd/inverse_beta", math.inf, "inverse_beta: Input should be a finite number"),
        ("stages/dmd/train/lr_scale", {"critic.": -1}, "lr_scale.critic.: Input should be greater than 0"),
        ("stages/dmd/train/betas", [0.9, 1.5], "betas.1: Input should be less than 1, got 1.5"),
        ("kind", ["shapes"], r"kind must be one of scratch, lora, wan, got \['shapes'\]"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, path: str, value: object, message: str) -> None:
    values = load_scratch_recipe("tiny").model_dump(mode="json")
    put(path, value)(values)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


def test_a_recipe_names_its_world(tmp_path: Path) -> None:
    """By its name, by its name and settings, or as older recipes do by the settings of the shapes world."""
    path = tmp_path / "mine.yaml"
    whole = yaml.safe_load((resources.files("pyrf.training") / "recipes" / "tiny.yaml").read_text())
    del whole["world"]
    motions = {"motions": ["left", "right"]}
    for given, world in (
        ({"world": "shapes"}, ShapesWorld()),
        ({"world": {"name": "shapes", **motions}}, ShapesWorld(motions=("left", "right"))),
        ({"shapes": ["circle"], **motions}, ShapesWorld(("circle",), ("left", "right"))),
        ({}, ShapesWorld()),
    ):
        path.write_text(yaml.safe_dump({**whole, **given}, sort_keys=False))
        assert load_scratch_recipe(str(path)).world == world


def test_recipes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe 'tinny'; bundled are tiny"):
        load_recipe("tinny")
    values = load_scratch_recipe("tiny").model_dump(mode="json")
    values["stages"]["codec"]["train"]["stepps"] = 3
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(
        RecipeError, match=r"stages\.codec\.codec\.train: unknown key 'stepps'; did you mean 'steps'\?$"
    ):
        load_recipe(str(path))
    values = load_scratch_recipe("tiny").model_dump(mode="json")
    for wrong, message in (
        ({"prompt": "", "seed": 0}, r"ship\.gallery\.0: each prompt of gallery must be a string, got ''"),
        ({"prompt": "a", "seed": -1}, r"ship\.gallery\.0: each seed of gallery must be at least 0, got -1"),
        ({"prompt": "a", "sed": 1}, r"ship\.gallery\.0: unknown key 'sed'; did you mean 'seed'\?"),
    ):
        values["ship"]["gallery"] = [wrong]
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(RecipeError, match=message):
            load_recipe(str(path))
    path.write_text("stages: [")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(str(path))
