"""Recipes: YAML files that say how a model is trained, stage by stage."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from pyrf.config import ModelConfig, StreamConfig
from pyrf.settings import Settings, first_problem
from pyrf.training.runner.trainer import TrainSettings
from pyrf.training.scratch.causal import CausalSettings
from pyrf.training.scratch.codec import CodecSettings
from pyrf.training.scratch.networks import NetworkSettings
from pyrf.training.scratch.teacher import TeacherSettings
from pyrf.training.scratch.world import RecipeWorld
from pyrf.training.stages.dmd import DmdSettings
from pyrf.training.stages.ode import OdeSettings


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says what to change."""


class _Stage(Settings):
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.network is None) == (self.init is None):
            raise ValueError("a teacher stage needs either `network` or `init`")
        return self


class CausalRecipe(_Stage):
    stage: Literal["causal"]
    causal: CausalSettings
    init: str


class OdeRecipe(_Stage):
    stage: Literal["ode"]
    ode: OdeSettings
    init: str


class DmdRecipe(_Stage):
    """`init` is the student's start, `teacher` the bidirectional network it is matched with.

    With `open_speed`, captions ask for motion and leave its speed open: there a reward may choose.
    """

    stage: Literal["dmd"]
    dmd: DmdSettings
    init: str
    teacher: str
    open_speed: bool = False


ShapesStage = Annotated[
    CodecRecipe | TeacherRecipe | CausalRecipe | OdeRecipe | DmdRecipe, Field(discriminator="stage")
]


class WanNetwork(Settings):
    """A Wan network and where its weights are.

    Attributes:
        bundle: a directory or hub id, see `pyrf.bundle.load_bundle`.
        weights: a file, local or on the hub, in place of the bundle's transformer.
        dim, ffn_dim, num_heads, num_layers: what the bundle must hold; the dry run counts by them.
    """

    bundle: str
    weights: str | None = None
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int

    def check(self, config: ModelConfig) -> None:
        """Refuse a bundle with a network of another size.

        Raises:
            RecipeError: naming the size that differs.
        """
        for name in ("dim", "ffn_dim", "num_heads", "num_layers"):
            expected, found = getattr(self, name), getattr(config, name)
            if expected != found:
                raise RecipeError(f"{self.bundle}: {name} is {found}, the recipe says {expected}")

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(self.dim, self.ffn_dim, self.num_heads, self.num_layers)


class WanOdeRecipe(_Stage):
    """The student learns four steps from the teacher's paths."""

    stage: Literal["ode"]
    ode: OdeSettings
    student: WanNetwork
    teacher: WanNetwork

    @property
    def networks(self) -> dict[str, WanNetwork]:
        return {"student": self.student, "teacher": self.teacher}


class WanDmdRecipe(_Stage):
    """The student's streams are drawn to the teacher's distribution."""

    stage: Literal["dmd"]
    dmd: DmdSettings
    student: WanNetwork
    critic: WanNetwork
    teacher: WanNetwork

    @property
    def networks(self) -> dict[str, WanNetwork]:
        return {"student": self.student, "critic": self.critic, "teacher": self.teacher}


WanStage = Annotated[WanOdeRecipe | WanDmdRecipe, Field(discriminator="stage")]


class StreamSettings(Settings):
    """How the student streams; see `pyrf.config.StreamConfig`."""

    chunk_frames: int = 3
    window_frames: int = 9
    sink_frames: int = 3
    sink_alpha: float = 0.999
    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    shift: float = 5.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.config
        return self

    @property
    def config(self) -> StreamConfig:
        return StreamConfig(**self.model_dump())


def _no_stage(where: str, name: str, known: set[str], which: str) -> str:
    return f"{where}: no stage {name!r} {which}; there are {', '.join(sorted(known)) or 'none'}"


class ShipSettings(Settings):
    """Which stages' networks make the bundle."""

    network: str
    codec: str


class _Recipe(Settings):
    """What all recipes say.

    Attributes:
        processes: that share each step's work; under torchrun it is torchrun that says so.
        threads: of torch in each process.
    """

    processes: int = Field(default=1, gt=0)
    threads: int = Field(default=1, gt=0)
    stream: StreamSettings

    @property
    def stream_config(self) -> StreamConfig:
        return self.stream.config


class Recipe(_Recipe):
    """A whole training from nothing: the world, and the stages in order.

    Attributes:
        scenes: encoded scenes that all stages after the codec share.
    """

    kind: Literal["shapes"] = "shapes"
    world: RecipeWorld
    scenes: int = Field(gt=0, multiple_of=10)
    stages: dict[str, ShapesStage] = Field(min_length=1)
    ship: ShipSettings

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, values: Any) -> Any:
        """Older recipes give the settings of the shapes world beside the stages, without a `world`."""
        if not isinstance(values, dict) or "world" in values:
            return values
        older = {key: value for key, value in values.items() if key in ("shapes", "motions")}
        others = {key: value for key, value in values.items() if key not in older}
        return {**others, "world": {"name": "shapes", **older}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        side = min(self.world.height, self.world.width)
        codecs: set[str] = set()
        networks: set[str] = set()
        for name, stage in self.stages.items():
            for key in ("init", "teacher"):
                other, known = getattr(stage, key, None), codecs if stage.stage == "codec" else networks
                if isinstance(other, str) and other not in known:
                    raise ValueError(_no_stage(f"stages.{name}.{key}", other, known, "before it"))
            if isinstance(stage, CodecRecipe) and stage.codec.crop > side:
                raise ValueError(
                    f"stages.{name}.codec.crop must be at most {side}, a frame's shorter side, "
                    f"got {stage.codec.crop}"
                )
            (codecs if stage.stage == "codec" else networks).add(name)
        for key, known in (("codec", codecs), ("network", networks)):
            if (name := getattr(self.ship, key)) not in known:
                raise ValueError(_no_stage(f"ship.{key}", name, known, "that makes one"))
        return self


class WanRecipe(_Recipe):
    """Distillation of Wan bundles, from prompts alone.

    Attributes:
        prompts: a .txt, .jsonl or .parquet file.
        negative_prompt: what guidance leads away from.
        codec: bundle whose text encoder, tokenizer and VAE are used.
        height, width: pixels of a video.
        latent_frames: of a rollout.
        precision: of computation; trained weights are kept in float32.
        checkpointing: compute each block again in the backward.
    """

    kind: Literal["wan"]
    prompts: Path
    negative_prompt: str
    codec: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    latent_frames: int = Field(gt=0)
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    checkpointing: bool = True
    stages: dict[str, WanStage] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        chunk = self.stream.chunk_frames
        for name, stage in self.stages.items():
            if isinstance(stage, WanDmdRecipe) and stage.dmd.chunks * chunk != self.latent_frames:
                raise ValueError(
                    f"stages.{name}.dmd.chunks: {stage.dmd.chunks} chunks of {chunk} frames are not the "
                    f"{self.latent_frames} of latent_frames"
                )
        return self


AnyRecipe = Recipe | WanRecipe
_KINDS: dict[str, TypeAdapter[Any]] = {"shapes": TypeAdapter(Recipe), "wan": TypeAdapter(WanRecipe)}


def load_any_recipe(name: str) -> AnyRecipe:
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
        values = yaml.safe_load(path.read_text())
        kind = values.get("kind", "shapes") if isinstance(values, dict) else "shapes"
        if not isinstance(kind, str) or kind not in _KINDS:
            raise RecipeError(f"{name}: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        recipe: AnyRecipe = _KINDS[kind].validate_python(values)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise RecipeError(f"{name}: {first_problem(error)}") from error
    return recipe


def load_recipe(name: str) -> Recipe:
    """`load_any_recipe` where only the shapes world will do.

    Raises:
        RecipeError: also when the recipe is of another kind.
    """
    recipe = load_any_recipe(name)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{name} is a recipe of kind {recipe.kind}; this needs one of the shapes world")
    return recipe
