"""Recipes: YAML files that say how a model is trained, stage by stage, and the command that runs them."""

from __future__ import annotations

import json
import logging
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file

from pyrf.config import StreamConfig
from pyrf.models.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.training import parallel
from pyrf.training.latents import LatentScenes, encode_scenes
from pyrf.training.models import NetworkSettings, TextToVideo, load_network
from pyrf.training.rewards.settings import load_judge
from pyrf.training.stages.causal import CausalSettings, CausalStage
from pyrf.training.stages.codec import CodecSettings, CodecStage
from pyrf.training.stages.dmd import DmdSettings, DmdStage
from pyrf.training.stages.ode import OdeSettings, OdeStage
from pyrf.training.stages.teacher import TeacherSettings, TeacherStage
from pyrf.training.trainer import Stage, TrainSettings, train
from pyrf.training.worlds.shapes import World

logger = logging.getLogger(__name__)

FIRST_SCENE = 5 * 10**7
"""Seed of the first encoded scene; held-out prompts draw from other generators."""


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says what to change."""


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    train: TrainSettings


class CodecRecipe(_Stage):
    """`init` names the codec stage whose weights are taken over."""

    stage: Literal["codec"]
    codec: CodecSettings
    init: str | None = None


class TeacherRecipe(_Stage):
    """`init` names the stage whose network is taken over; without it, `network` starts from nothing."""

    stage: Literal["teacher"]
    teacher: TeacherSettings
    network: NetworkSettings | None = None
    init: str | None = None


class CausalRecipe(_Stage):
    stage: Literal["causal"]
    causal: CausalSettings
    init: str


class OdeRecipe(_Stage):
    stage: Literal["ode"]
    ode: OdeSettings
    init: str


class DmdRecipe(_Stage):
    """`init` is the student's start, `teacher` the bidirectional network it is matched with."""

    stage: Literal["dmd"]
    dmd: DmdSettings
    init: str
    teacher: str


AnyStage = Annotated[
    CodecRecipe | TeacherRecipe | CausalRecipe | OdeRecipe | DmdRecipe, Field(discriminator="stage")
]


class StreamSettings(BaseModel):
    """How the student streams; see `pyrf.config.StreamConfig`."""

    model_config = ConfigDict(extra="forbid")

    chunk_frames: int = 3
    window_frames: int = 9
    sink_frames: int = 3
    sink_alpha: float = 0.999
    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    shift: float = 3.0


class ShipSettings(BaseModel):
    """Which stages' networks make the bundle."""

    model_config = ConfigDict(extra="forbid")

    network: str
    codec: str


class Recipe(BaseModel):
    """A whole training: the world, how the student streams, and the stages in order.

    Attributes:
        scenes: encoded scenes that all stages after the codec share.
        processes: that share each batch's work; a batch holds `batch` samples in every process.
        threads: of torch in each process.
    """

    model_config = ConfigDict(extra="forbid")

    shapes: tuple[str, ...]
    motions: tuple[str, ...]
    scenes: int = Field(gt=0, multiple_of=10)
    processes: int = Field(default=1, gt=0)
    threads: int = Field(default=1, gt=0)
    stream: StreamSettings
    stages: dict[str, AnyStage]
    ship: ShipSettings

    @property
    def world(self) -> World:
        return World(self.shapes, self.motions)

    @property
    def stream_config(self) -> StreamConfig:
        return StreamConfig(**self.stream.model_dump())


def load_recipe(name: str) -> Recipe:
    """A recipe by the name of one that is bundled, or by the path of a YAML file.

    Raises:
        RecipeError: when there is none, or it does not say what a recipe must.
    """
    bundled = resources.files("pyrf.training") / "recipes"
    path = Path(name) if name.endswith((".yaml", ".yml")) else bundled / f"{name}.yaml"
    if not path.is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in bundled.iterdir() if f.name.endswith(".yaml"))
        raise RecipeError(f"no recipe {name!r}; bundled are {', '.join(known)}, or give a .yaml file")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{name}: {where}: {first['msg']}, got {first['input']!r}") from error


def run_stage(recipe: Recipe, name: str, folder: Path) -> None:
    """Run or resume one stage, if it is not done; it reads the stages before it from `folder`.

    Raises:
        RecipeError: when the recipe has no such stage.
        FileNotFoundError: when a stage before it has not been run.
    """
    if name not in recipe.stages:
        raise RecipeError(f"the recipe has no stage {name!r}; its stages are {', '.join(recipe.stages)}")
    parallel.launch(recipe.processes, _run_stage, recipe, name, folder)


def _run_stage(recipe: Recipe, name: str, folder: Path) -> None:
    """`run_stage` in one of its processes."""
    settings = recipe.stages[name]
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(settings.train.seed)
    logger.info("stage %s: %d steps in %s", name, settings.train.steps, folder / name)
    train(_build(recipe, settings, folder, folder / name), settings.train, folder / name)


def _build(recipe: Recipe, settings: AnyStage, folder: Path, own: Path) -> Stage:
    world, batch = recipe.world, settings.train.batch
    if isinstance(settings, CodecRecipe):
        start = load_codec(folder / settings.init).network.state_dict() if settings.init else None
        return CodecStage(settings.codec, world, batch, start)
    codec = load_codec(folder / "codec")
    scenes = _scenes(recipe, codec, folder)
    stream = recipe.stream_config
    if isinstance(settings, TeacherRecipe):
        if settings.init is not None:
            network, sizes = load_network(folder / settings.init)
        elif settings.network is not None:
            network, sizes = TextToVideo(settings.network), settings.network
        else:
            raise RecipeError("a teacher stage needs either `network` or `init`")
        return TeacherStage(settings.teacher, network, sizes, scenes, codec, batch)
    network, sizes = load_network(folder / settings.init)
    if isinstance(settings, CausalRecipe):
        return CausalStage(settings.causal, network, sizes, scenes, codec, stream, batch)
    if isinstance(settings, DmdRecipe):
        teacher, critic = (load_network(folder / settings.teacher)[0] for _ in range(2))
        judge = None if settings.dmd.reward is None else load_judge(settings.dmd.reward)
        return DmdStage(settings.dmd, teacher, critic, network, sizes, scenes, codec, stream, batch, judge)
    teacher, _ = load_network(folder / settings.init)
    return OdeStage(settings.ode, teacher, network, sizes, scenes, codec, stream, batch, own)


def load_codec(folder: Path) -> TAEHVCodec:
    """The codec that the codec stage exported to `folder`."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no codec; run the codec stage first")
    network = TAEHV(TAEHVConfig.from_dict(json.loads((folder / "config.json").read_text())))
    network.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return TAEHVCodec(network)


def _scenes(recipe: Recipe, codec: TAEHVCodec, folder: Path) -> LatentScenes:
    return encode_scenes(codec.network, recipe.world, recipe.scenes, FIRST_SCENE, folder / "scenes")
