"""Stages of the shapes world, from a recipe and the files that the stages before them left."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.training.recipe import (
    CausalRecipe,
    CodecRecipe,
    DmdRecipe,
    Recipe,
    TeacherRecipe,
)
from pyrf.training.runner.origin import fingerprint
from pyrf.training.runner.trainer import Stage
from pyrf.training.scratch.causal import CausalForcing, CausalStage
from pyrf.training.scratch.codec import CodecStage
from pyrf.training.scratch.latents import LatentScenes, encode_scenes
from pyrf.training.scratch.networks import TextToVideo, load_network
from pyrf.training.scratch.teacher import TeacherStage
from pyrf.training.stages.dmd import DmdStage
from pyrf.training.stages.ode import OdeStage
from pyrf.training.stages.reward import load_reward

FIRST_SCENE = 5 * 10**7
"""Seed of the first encoded scene; held-out prompts draw from other generators."""


def build_stage(recipe: Recipe, name: str, folder: Path) -> Stage:
    """Build a stage of `recipe`; stages keep their files in folders of their names.

    Raises:
        FileNotFoundError: when a stage before it has not been run.
    """
    settings = recipe.stages[name]
    world, batch, stream = recipe.world, settings.train.batch, recipe.stream_config
    if isinstance(settings, CodecRecipe):
        start = load_codec(folder / settings.init).network.state_dict() if settings.init else None
        return CodecStage(settings.codec, world, batch, start)
    codec = load_codec(folder / "codec")
    scenes = _scenes(recipe, codec, folder)
    if isinstance(settings, TeacherRecipe):
        if settings.init is not None:
            network = load_network(folder / settings.init, world.vocabulary)
        else:
            assert settings.network is not None
            network = TextToVideo(settings.network, world.vocabulary)
        return TeacherStage(settings.teacher, network, scenes, codec, batch)
    network = load_network(folder / settings.init, world.vocabulary)
    if isinstance(settings, CausalRecipe):
        return CausalStage(settings.causal, network, scenes, codec, stream, batch)
    if isinstance(settings, DmdRecipe):
        teacher, critic = (load_network(folder / settings.teacher, world.vocabulary) for _ in range(2))
        reward = settings.dmd.reward
        judge = None if reward is None else load_reward(reward)
        if settings.open_speed:
            scenes = scenes.of_open_speed()
        return DmdStage(settings.dmd, teacher, critic, network, scenes, codec, stream, batch, judge)
    teacher = load_network(folder / settings.init, world.vocabulary)
    paths = CausalForcing(scenes, stream, batch, settings.ode.context_noise)
    origin = fingerprint(teacher, codec.network, world, len(scenes))
    return OdeStage(
        settings.ode, teacher, network, scenes, paths, codec, stream, batch, folder / name, origin
    )


def load_codec(folder: Path) -> TAEHVCodec:
    """The codec that the codec stage exported to `folder`."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no codec; run the codec stage first")
    network = TAEHV(TAEHVConfig.from_dict(json.loads((folder / "config.json").read_text())))
    network.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return TAEHVCodec(network)


def _scenes(recipe: Recipe, codec: TAEHVCodec, folder: Path) -> LatentScenes:
    return encode_scenes(codec.network, recipe.world, recipe.scenes, FIRST_SCENE, folder / "scenes")
