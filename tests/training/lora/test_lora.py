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
from pyrf.training.lora.clips import FIRST_SEED, changed_clips
from pyrf.training.lora.lesson import Lesson
from pyrf.training.lora.network import ADAPTER_FILE, AdaptedTextToVideo
from pyrf.training.lora.recipe import LoraRecipe
from pyrf.training.lora.twin import twin_lesson, twin_seen, twinned
from pyrf.training.recipe import RecipeError
from pyrf.training.run import run_stage
from pyrf.worlds.shapes.attributes import COLORS, WIDTH
from pyrf.worlds.shapes.captions import COLOR_WORDS
from pyrf.worlds.shapes.scenes import Scene
from pyrf.worlds.shapes.world import ShapesWorld

pytest.importorskip("peft", reason="adapters are trained with peft, from the lora extra")

NAMES = ("blocks.0.self_attn.q", "blocks.5.cross_attn.v", "blocks.3.ffn.0", "blocks.3.ffn.2")


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return load_bundle("tiny")


@pytest.mark.parametrize("background", ["grey", "black", "brown", "teal"])
@pytest.mark.parametrize("motion", ["still", "right", "up"])
def test_a_twinned_clip_is_the_scene_with_its_shape_twice(motion: str, background: str) -> None:
    drawn = ShapesWorld().sample(random.Random(3))
    scene = Scene.sample(replace(drawn, background=background, motion=motion, speed=None), random.Random(3))
    alone = scene.render(0, 33)
    beside = replace(scene, start=(scene.start[0] + WIDTH / 2, scene.start[1])).render(0, 33)
    found = twinned(alone, drawn.color)
    color = np.array(COLORS[drawn.color])
    nearer = np.abs(alone - color.astype(float)).sum(-1) < np.abs(beside - color.astype(float)).sum(-1)
    expected = np.where(nearer[..., None], alone, beside)
    difference = np.abs(found.astype(int) - expected.astype(int)).max(-1)
    assert np.quantile(difference, 0.97) < 12  # but for pixels at the edge
    assert twin_seen(alone) == pytest.approx(0.0, abs=0.02)
    assert twin_seen(found) == pytest.approx(1.0, abs=0.02)


def test_a_lesson_changes_the_stream_of_its_own_caption() -> None:
    lessons = [twin_lesson(seed) for seed in range(20)]
    assert all(lesson.streamed == lesson.told for lesson in lessons)
    assert len({lesson.told for lesson in lessons}) > 15
    for lesson in lessons:
        color = next(color for color, words in COLOR_WORDS.items() if set(words) & set(lesson.told.split()))
        scene = Scene.sample(replace(ShapesWorld().sample(random.Random(0)), color=color), random.Random(0))
        assert lesson.change is not None
        assert twin_seen(lesson.change(scene.render(0, 9))) > 0.95


def test_clips_that_stay_are_the_streams_own(tiny: Bundle) -> None:
    def lesson(seed: int) -> Lesson:
        same = (lambda frames: frames) if seed % 2 else None
        return Lesson(f"a {('red', 'blue', 'green')[seed % 3]} square bounces", f"told {seed}", same)

    clips = changed_clips(tiny, 3, lesson)
    seeds = range(FIRST_SEED, FIRST_SEED + 3)
    assert clips.captions == [f"told {seed}" for seed in seeds]
    prompts = tiny.text_encoder().encode([lesson(seed).streamed for seed in seeds])
    rollout = TorchRollout(tiny.transformer(), tiny.stream_config, 3, LatentSize(8, 12), prompts)
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
    stage = values["stages"]["twin"]
    stage["adapter"] |= {"clips": 2, "rank": 2}
    stage["eval_prompts"] = stage["eval_prompts"][:1]
    stage["train"] |= {"steps": steps, "batch": 2, "checkpoint_minutes": 0}
    return LoraRecipe.model_validate(values)


def test_a_run_gives_the_same_file_again(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        run_stage(small(2), "twin", tmp_path / name)
        files.append(load_file(tmp_path / name / "twin" / ADAPTER_FILE))
    one, two = files
    assert all(one[key].equal(two[key]) for key in one)
    assert any(key.endswith("lora_B.weight") and tensor.any() for key, tensor in one.items())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"recolor": {"color": "blue"}}, "recolor"),
        ({"eval_prompts": []}, "eval_prompts"),
    ],
)
def test_recipes_that_cannot_be_run(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    import yaml

    values = {"kind": "lora", **small(1).model_dump(mode="json")}
    values["stages"]["twin"] |= change
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=problem):
        load_recipe(str(file))


def test_the_bundle_must_show_the_world(random_bundle: Path, tmp_path: Path) -> None:
    recipe = small(1)
    recipe.stages["twin"].bundle = str(random_bundle)
    with pytest.raises(ValueError, match="does not show the shapes world"):
        recipe.build_stage("twin", tmp_path)
