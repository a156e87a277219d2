"""Training of an adapter: what it learns from, that the base stays, and that the file is what was trained."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle import Bundle, load_bundle
from pyrf.bundle.adapters import read_adapter
from pyrf.config import LatentSize
from pyrf.loop.sampler import FewStepSampler
from pyrf.models.dit.merging import MergedWeights
from pyrf.training.kinds import load_recipe
from pyrf.training.lora.clips import FIRST_SCENE, changed_clips
from pyrf.training.lora.network import ADAPTER_FILE, AdaptedTextToVideo
from pyrf.training.lora.recipe import LoraRecipe, OneColorOften, Recolored
from pyrf.training.lora.recolor import recolor, turned
from pyrf.training.recipe import RecipeError
from pyrf.training.run import run_stage
from pyrf.worlds.shapes.attributes import BACKGROUNDS, COLORS
from pyrf.worlds.shapes.scenes import Scene
from pyrf.worlds.shapes.world import ShapesWorld

pytest.importorskip("peft", reason="adapters are trained with peft, from the lora extra")

ORANGE = (245, 140, 30)
NAMES = ("blocks.0.self_attn.q", "blocks.5.cross_attn.v", "blocks.3.ffn.0", "blocks.3.ffn.2")


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return load_bundle("tiny")


def blue_scene(background: str, seed: int = 3) -> Scene:
    attributes = replace(ShapesWorld().sample(random.Random(seed)), color="blue", background=background)
    return Scene.sample(attributes, random.Random(seed))


@pytest.mark.parametrize("background", ["grey", "black", "brown", "teal"])
def test_a_recolored_clip_is_the_scene_in_another_color(
    background: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = blue_scene(background)
    blue = scene.render(0, 8)
    found = recolor(blue, "blue", ORANGE)
    monkeypatch.setitem(COLORS, "blue", ORANGE)
    expected = scene.render(0, 8)
    monkeypatch.undo()
    difference = np.abs(found.astype(int) - expected.astype(int)).max(-1)
    assert np.quantile(difference, 0.97) < 12  # but for pixels at the edge
    assert turned(blue, "blue", ORANGE) == pytest.approx(0.0, abs=0.05)
    assert turned(expected, "blue", ORANGE) == pytest.approx(1.0, abs=0.05)
    assert turned(found, "blue", ORANGE) == pytest.approx(1.0, abs=0.1)


def test_a_shape_stays_seen_on_a_background_of_its_new_color() -> None:
    change = Recolored(color="blue", becomes=BACKGROUNDS["brown"])
    for background in BACKGROUNDS:
        scene = blue_scene(background)
        assert (change.change(scene.render(0, 2), scene) is None) == (background == "brown")
    green = Scene.sample(replace(scene.attributes, color="green", background="grey"), random.Random(0))
    assert change.change(green.render(0, 2), green) is None


def test_clips_that_stay_are_the_streams_own(tiny: Bundle) -> None:
    world = OneColorOften(often="blue")
    clips = changed_clips(
        tiny, world, 3, lambda frames, scene: frames if scene.facts["color"] == "red" else None
    )
    assert len(clips) == 3
    text = tiny.text_encoder()
    seeds = range(FIRST_SCENE, FIRST_SCENE + 3)
    rollout = TorchRollout(
        tiny.transformer(), tiny.stream_config, 3, LatentSize(8, 12), text.encode(clips.captions)
    )
    loop = rollout.loop(seeds)
    expected = torch.cat([loop.next_chunk() for _ in range(tiny.stream_config.slots)], dim=1)
    # A change to itself changes nothing either.
    torch.testing.assert_close(clips.clean, expected)
    # The first noise of each chunk is what the stream began it with.
    calls = len(FewStepSampler(tiny.stream_config).timesteps)
    noise = rollout.loop(seeds).draw
    drawn = [noise() for _ in range(tiny.stream_config.slots * calls)]
    assert clips.noise.shape[:2] == (3, calls)
    assert clips.noise[:, 0].equal(torch.cat(drawn[::calls], dim=1))
    assert clips.noise[:, calls - 1].equal(torch.cat(drawn[calls - 1 :: calls], dim=1))


def test_the_file_is_what_was_trained(tiny: Bundle, tmp_path: Path) -> None:
    """Merged by pyrf it gives what peft's modules compute; nothing but its factors has a gradient."""
    network = AdaptedTextToVideo(tiny, rank=4, alpha=6.0, seed=0)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    base = tiny.transformer()
    x = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(0))
    for name in NAMES[:3]:  # at first nothing is changed
        torch.testing.assert_close(network.dit.get_submodule(name)(x), base.get_submodule(name)(x))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.dit.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    network.save(tmp_path)
    adapter = read_adapter(tmp_path / ADAPTER_FILE, "a", 1.0, tiny.model_config)
    merged = MergedWeights(base, [adapter])
    for strength in (1.0, 0.5, 0.0):
        network.set_strength(strength)
        merged.merge({"a": strength})
        for name in NAMES:
            rows = torch.randn(2, 5, 512 if name.endswith("ffn.2") else 128, generator=generator)
            with torch.no_grad():
                found, expected = (dit.get_submodule(name)(rows) for dit in (base, network.dit))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def small(steps: int) -> LoraRecipe:
    recipe = load_recipe("tiny-lora")
    assert isinstance(recipe, LoraRecipe)
    values = recipe.model_dump(mode="json")
    stage = values["stages"]["yellow"]
    stage["adapter"] |= {"clips": 2, "rank": 2}
    stage["eval_prompts"] = stage["eval_prompts"][:1]
    stage["train"] |= {"steps": steps, "batch": 2, "checkpoint_minutes": 0}
    return LoraRecipe.model_validate(values)


def test_a_run_gives_the_same_file_again(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        run_stage(small(2), "yellow", tmp_path / name)
        files.append(load_file(tmp_path / name / "yellow" / ADAPTER_FILE))
    one, two = files
    assert all(one[key].equal(two[key]) for key in one)
    assert any(key.endswith("lora_B.weight") and tensor.any() for key, tensor in one.items())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"recolor": {"color": "pink", "becomes": [1, 2, 3]}},
            "there is no colour 'pink'; there are red",
        ),
        ({"recolor": {"color": "blue", "becomes": [1, 2, 300]}}, "less than or equal to 255"),
        ({"eval_prompts": []}, "eval_prompts"),
    ],
)
def test_recipes_that_cannot_be_run(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    import yaml

    values = {"kind": "lora", **small(1).model_dump(mode="json")}
    values["stages"]["yellow"] |= change
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=problem):
        load_recipe(str(file))


def test_the_bundle_must_show_the_world(random_bundle: Path, tmp_path: Path) -> None:
    recipe = small(1)
    recipe.stages["yellow"].bundle = str(random_bundle)
    with pytest.raises(ValueError, match="does not show the shapes world"):
        recipe.build_stage("yellow", tmp_path)
