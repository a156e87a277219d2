"""Recipes that train a model from nothing in a small world, and what each of their stages is made of."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator

from pyrf.bundle.bundle import Bundle
from pyrf.bundle.card import MAX_GALLERY, Shown
from pyrf.machine import available_cpus
from pyrf.settings import Settings, known_fields
from pyrf.training.needs import FileNeed, Needs
from pyrf.training.recipe import Recipe, RecipeError, StageRecipe, StreamSettings
from pyrf.training.runner import processes
from pyrf.training.runner.host_state import of_a_training
from pyrf.training.runner.origin import fingerprint
from pyrf.training.runner.stage import Stage
from pyrf.training.scratch.block_codec import BlockCodecSettings, BlockCodecStage
from pyrf.training.scratch.block_decoder import BlockDecoderSettings, BlockDecoderStage
from pyrf.training.scratch.causal import CausalForcing, CausalSettings, CausalStage
from pyrf.training.scratch.codec import CodecSettings, CodecStage
from pyrf.training.scratch.networks import NetworkSettings, ScratchTextToVideo
from pyrf.training.scratch.restore import restore
from pyrf.training.scratch.run import Run
from pyrf.training.scratch.ship import card_of, ship_latest
from pyrf.training.scratch.teacher import TeacherSettings, TeacherStage
from pyrf.training.scratch.world import RecipeWorld
from pyrf.training.stages.dmd import DmdSettings, DmdStage
from pyrf.training.stages.ode import OdeSettings, OdeStage
from pyrf.training.stages.reward import load_reward


class ScratchStage(StageRecipe):
    """A stage of a training from nothing. It makes a network, or where it says so a codec."""

    makes_codec: ClassVar[bool] = False

    @abstractmethod
    def build(self, run: Run, name: str) -> Stage[Any]:
        """Load what the stage needs from the folders of the stages before it."""

    @property
    def before(self) -> dict[str, str]:
        """Stages that must have run, by the key of the recipe that names them."""
        names = {key: getattr(self, key, None) for key in ("init", "teacher", "student")}
        return {key: name for key, name in names.items() if isinstance(name, str)}

    def names_codec(self, key: str) -> bool:
        """Whether a key of `before` names a codec's stage: what is gone on from is of the same kind."""
        return self.makes_codec and key == "init"


class CodecRecipe(ScratchStage):
    """`init` names the codec stage whose weights are taken over."""

    makes_codec: ClassVar[bool] = True
    stage: Literal["codec"]
    codec: CodecSettings
    init: str | None = None

    def build(self, run: Run, name: str) -> Stage[Any]:
        start = run.codec_of(self.init).network.state_dict() if self.init else None
        return CodecStage(self.codec, run.world, self.train.batch, start)


class BlockCodecRecipe(ScratchStage):
    """A codec that begins as a linear one; its encoder stays so."""

    makes_codec: ClassVar[bool] = True
    stage: Literal["block-codec"]
    codec: BlockCodecSettings

    def build(self, run: Run, name: str) -> Stage[Any]:
        return BlockCodecStage(self.codec, run.world, self.train.batch, run.folder / name)


class BlockDecoderRecipe(ScratchStage):
    """`init` names the codec stage to go on from, `student` the stage whose network streams."""

    makes_codec: ClassVar[bool] = True
    stage: Literal["block-decoder"]
    decoder: BlockDecoderSettings
    init: str
    student: str

    def build(self, run: Run, name: str) -> Stage[Any]:
        network, student = run.codec_of(self.init).network, run.network_of(self.student)
        return BlockDecoderStage(self.decoder, network, student, run.scenes, run.stream, self.train.batch)


class TeacherRecipe(ScratchStage):
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

    def build(self, run: Run, name: str) -> Stage[Any]:
        scenes = run.scenes  # first: a new network's weights are drawn after it
        if self.network is not None:
            network = ScratchTextToVideo(self.network, run.world.vocabulary).to(run.device)
        else:
            assert self.init is not None
            network = run.network_of(self.init)
        return TeacherStage(self.teacher, network, scenes, run.codec, self.train.batch)


class CausalRecipe(ScratchStage):
    """`init` names the stage whose network is taken over."""

    stage: Literal["causal"]
    causal: CausalSettings
    init: str

    def build(self, run: Run, name: str) -> Stage[Any]:
        scenes, network = run.scenes, run.network_of(self.init)
        return CausalStage(self.causal, network, scenes, run.codec, run.stream, self.train.batch)


class OdeRecipe(ScratchStage):
    """`init` names the stage whose network is both the teacher and the student's start."""

    stage: Literal["ode"]
    ode: OdeSettings
    init: str

    def build(self, run: Run, name: str) -> Stage[Any]:
        scenes, batch = run.scenes, self.train.batch
        student, teacher = run.network_of(self.init), run.network_of(self.init)
        return OdeStage(
            self.ode,
            teacher=teacher,
            student=student,
            data=scenes,
            paths=CausalForcing(
                scenes, run.stream, batch, self.ode.context_noise, self.ode.turns, run.device
            ),
            codec=run.codec,
            stream=run.stream,
            batch=batch,
            folder=run.folder / name,
            origin=fingerprint(teacher, run.codec.network, run.world, len(scenes)),
            half=self.train.autocast,
        )


class DmdRecipe(ScratchStage):
    """`init` is the student's start, `teacher` the bidirectional network it is matched with.

    With `open_speed`, captions ask for motion and leave its speed open: there a reward may choose. `stream`
    says how this student streams where that is not the recipe's way, as one of fewer steps does.
    """

    stage: Literal["dmd"]
    dmd: DmdSettings
    init: str
    teacher: str
    open_speed: bool = False
    stream: StreamSettings | None = None

    def build(self, run: Run, name: str) -> DmdStage:
        scenes = run.scenes.of_open_speed() if self.open_speed else run.scenes
        reward = self.dmd.reward
        return DmdStage(
            self.dmd,
            teacher=run.network_of(self.teacher),
            critic=run.network_of(self.teacher),
            student=run.network_of(self.init),
            data=scenes,
            codec=run.codec,
            stream=self.stream or run.stream,
            batch=self.train.batch,
            reward=None if reward is None else load_reward(reward),
        )


AnyStage = Annotated[
    CodecRecipe
    | BlockCodecRecipe
    | BlockDecoderRecipe
    | TeacherRecipe
    | CausalRecipe
    | OdeRecipe
    | DmdRecipe,
    Field(discriminator="stage"),
]


class ShipSettings(Settings):
    """Which stages' networks make the bundle.

    Attributes:
        dtype: in which its weights are stored.
        gallery: prompts that it shows well, with their seeds.
    """

    network: str
    codec: str
    dtype: Literal["float32", "float16"] = "float32"
    gallery: tuple[Annotated[Shown, BeforeValidator(known_fields(Shown))], ...] = Field(
        (), max_length=MAX_GALLERY
    )


class ScratchRecipe(Recipe):
    """A whole training from nothing: the world, and the stages in order.

    Attributes:
        device: where networks are trained; codecs are trained on the CPU.
        scenes: encoded scenes that all stages after the codec share.
        stream: how the student streams.
    """

    kind: Literal["scratch"] = "scratch"
    device: Literal["cpu", "cuda"] = "cpu"
    stream: StreamSettings
    world: RecipeWorld
    scenes: int = Field(gt=0, multiple_of=10)
    stages: dict[str, AnyStage] = Field(min_length=1)
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
            for key, other in stage.before.items():
                known = codecs if stage.names_codec(key) else networks
                if other not in known:
                    raise ValueError(_no_stage(f"stages.{name}.{key}", other, known, "before it"))
            if isinstance(stage, CodecRecipe) and stage.codec.crop > side:
                raise ValueError(
                    f"stages.{name}.codec.crop must be at most {side}, a frame's shorter side, "
                    f"got {stage.codec.crop}"
                )
            (codecs if stage.makes_codec else networks).add(name)
        for key, known in (("codec", codecs), ("network", networks)):
            if (name := getattr(self.ship, key)) not in known:
                raise ValueError(_no_stage(f"ship.{key}", name, known, "that makes one"))
        return self

    def run_in(self, folder: Path) -> Run:
        """The run of this recipe in a folder."""
        return Run(folder, self.world, self.stream, self.scenes, self.default_device())

    def default_device(self) -> torch.device:
        """Where the recipe says."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise RecipeError("the recipe says device: cuda, but torch sees no GPU; say device: cpu")
        return torch.device(self.device)

    def build_stage(self, name: str, folder: Path) -> Stage[Any]:
        if self.device != "cpu":
            if self.stages[name].makes_codec:
                raise RecipeError(f"stage {name}: codecs are trained on the CPU; say device: cpu for it")
            # many cores draw and encode scenes, which the one process of a GPU would wait for
            processes.launch(available_cpus(), _encode_scenes, self, folder)
        return self.stages[name].build(self.run_in(folder), name)

    def needs(self, name: str, processes: int, folder: Path | None) -> Needs:
        return Needs(
            [
                FileNeed(name, f"{key}: stage", other, folder is not None and (folder / other).exists())
                for key, other in self.stages[name].before.items()
            ]
        )

    def restore(self, folder: Path, bundle: Bundle, stage: str) -> None:
        before = self.stages[stage].before.get("init")
        if before is None or self.stages[before].makes_codec:
            raise RecipeError(f"stage {stage} does not go on from a network, so it takes none from a bundle")
        restore(self.run_in(folder), bundle, before)

    def make_bundle(self, folder: Path) -> Path | None:
        card, dtype = card_of(self.world, self.ship.gallery), getattr(torch, self.ship.dtype)
        run, student = self.run_in(folder), self.stages[self.ship.network]
        if isinstance(student, DmdRecipe) and student.stream is not None:
            run = replace(run, stream=student.stream)
        return ship_latest(run, self.ship.network, self.ship.codec, card, dtype)


def _encode_scenes(recipe: ScratchRecipe, folder: Path) -> None:
    """Make the scenes that are missing, in one of the processes that share this."""
    with of_a_training(0, recipe.threads):
        _ = Run(folder, recipe.world, recipe.stream, recipe.scenes, torch.device("cpu")).scenes


def _no_stage(where: str, name: str, known: set[str], which: str) -> str:
    return f"{where}: no stage {name!r} {which}; there are {', '.join(sorted(known)) or 'none'}"
