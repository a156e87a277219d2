"""Stages of a Wan recipe, from bundles and prompts."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.device_mesh import init_device_mesh

from pyrf.bundle.bundle import load_bundle
from pyrf.dtypes import dtype_of
from pyrf.training.recipe import RecipeError, WanDmdRecipe, WanNetwork, WanRecipe
from pyrf.training.runner import processes
from pyrf.training.runner.origin import fingerprint
from pyrf.training.runner.trainer import Stage
from pyrf.training.stages.dmd import DmdStage
from pyrf.training.stages.ode import OdeStage
from pyrf.training.stages.reward import load_reward
from pyrf.training.wan.data import WanData
from pyrf.training.wan.networks import FrozenText, WanTextToVideo, load_wan
from pyrf.training.wan.prompts import PromptOrder, read_prompts


def build_stage(recipe: WanRecipe, name: str, folder: Path) -> Stage:
    """Load what a stage needs; its own files go to a folder of its name.

    Raises:
        ValueError: when prompts, a bundle or a reward is missing, damaged or does not fit.
    """
    processes.join()
    settings, stream, device = recipe.stages[name], recipe.stream_config, processes.device()
    batch, dtype = settings.train.batch, dtype_of(recipe.precision)
    prompts = PromptOrder(read_prompts(recipe.prompts), settings.train.seed)
    parts = load_bundle(recipe.codec)
    codec = parts.codec(dtype=dtype, device=device)
    sides = (recipe.height, recipe.width)
    if any(side % (2 * codec.spatial_stride) for side in sides):
        raise RecipeError(f"height and width must be multiples of {2 * codec.spatial_stride}, got {sides}")
    height, width = (side // codec.spatial_stride for side in sides)
    shape = (codec.latent_channels, height, width)
    data = WanData(prompts, stream, shape, recipe.latent_frames, batch)
    text = FrozenText(parts.text_encoder(dtype=dtype), recipe.negative_prompt, device)
    mesh = init_device_mesh(device.type, (processes.world_size(),))

    def load(network: WanNetwork, *, trained: bool) -> WanTextToVideo:
        return load_wan(
            network, text.embed, mesh, dtype=dtype, trained=trained, checkpointing=recipe.checkpointing
        )

    teacher, student = load(settings.teacher, trained=False), load(settings.student, trained=True)
    if isinstance(settings, WanDmdRecipe):
        critic = load(settings.critic, trained=True)
        reward = settings.dmd.reward
        judge = None if reward is None else load_reward(reward)
        return DmdStage(settings.dmd, teacher, critic, student, data, codec, stream, batch, judge)
    origin = fingerprint(
        settings.teacher, recipe.negative_prompt, shape, recipe.latent_frames, recipe.prompts
    )
    return OdeStage(settings.ode, teacher, student, data, data, codec, stream, batch, folder / name, origin)
