"""Recipes that distil Wan bundles, and what each of their stages is made of."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pyrf.bundle.bundle import load_bundle
from pyrf.bundle.hub import has_bundle, has_student
from pyrf.config import ModelConfig
from pyrf.dtypes import dtype_of
from pyrf.evaluation.scores.settings import UserPath, VideoAlignSettings, single_scores
from pyrf.memory.bill import MemoryRow
from pyrf.models.codecs.codec import Codec
from pyrf.models.wan21 import LATENTS
from pyrf.models.wan22 import geometry_of
from pyrf.settings import Settings
from pyrf.training.needs import FileNeed, Needs
from pyrf.training.recipe import Recipe, RecipeError, StageRecipe, StreamSettings
from pyrf.training.runner import processes
from pyrf.training.runner.origin import fingerprint
from pyrf.training.runner.stage import Stage
from pyrf.training.stages.dmd import DmdSettings, DmdStage
from pyrf.training.stages.ode import OdeSettings, OdeStage
from pyrf.training.stages.reward import load_reward
from pyrf.training.wan import memory
from pyrf.training.wan.data import WanData
from pyrf.training.wan.networks import FrozenText, WanTextToVideo, load_wan
from pyrf.training.wan.prompts import PromptOrder, read_prompts


class WanNetwork(Settings):
    """A Wan network and where its weights are.

    Attributes:
        bundle: a directory or hub id, see `pyrf.bundle.load_bundle`.
        weights: a file, local or on the hub, in place of the bundle's transformer.
        dim, ffn_dim, num_heads, num_layers: what the bundle must hold; the dry run counts by them.
        channels: of its latents, 48 for Wan2.2-TI2V-5B.
    """

    bundle: str
    weights: str | None = None
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    channels: int = LATENTS.latent_channels

    def check(self, config: ModelConfig) -> None:
        """Refuse a bundle with a network of another size.

        Raises:
            RecipeError: naming the size that differs.
        """
        for name in ("dim", "ffn_dim", "num_heads", "num_layers"):
            expected, found = getattr(self, name), getattr(config, name)
            if expected != found:
                raise RecipeError(f"{self.bundle}: {name} is {found}, the recipe says {expected}")
        if config.in_channels != self.channels:
            raise RecipeError(
                f"{self.bundle}: channels are {config.in_channels}, the recipe says {self.channels}"
            )

    @property
    def config(self) -> ModelConfig:
        channels = {"in_channels": self.channels, "out_channels": self.channels}
        return ModelConfig(self.dim, self.ffn_dim, self.num_heads, self.num_layers, **channels)


@dataclass(frozen=True)
class Parts:
    """What all stages of a recipe are made of.

    Attributes:
        folder: of the stage.
        origin: what the recipe says that shapes a teacher's paths.
    """

    data: WanData
    codec: Codec
    text: FrozenText
    mesh: DeviceMesh
    dtype: torch.dtype
    checkpointing: bool
    folder: Path
    origin: tuple[object, ...]

    def network(self, settings: WanNetwork, *, trained: bool) -> WanTextToVideo:
        """Load a network sharded.

        Raises:
            ValueError: when the bundle is missing, damaged, or not of the size that the recipe says.
        """
        bundle = load_bundle(settings.bundle, student=settings.weights)
        settings.check(bundle.model_config)
        return load_wan(
            bundle,
            self.text.encode,
            self.mesh,
            dtype=self.dtype,
            trained=trained,
            checkpointing=self.checkpointing,
        )


class WanStage(StageRecipe):
    """A stage of a distillation."""

    student: WanNetwork
    teacher: WanNetwork

    @property
    def networks(self) -> dict[str, WanNetwork]:
        return {"student": self.student, "teacher": self.teacher}

    @abstractmethod
    def build(self, parts: Parts) -> Stage[Any]:
        """Load what the stage needs beside `parts`."""

    @abstractmethod
    def activations(self, clip: memory.Clip) -> list[MemoryRow]:
        """What a micro-batch keeps and computes with."""

    @abstractmethod
    def files(self, name: str, folder: Path | None) -> list[FileNeed]:
        """What the stage reads beside prompts and bundles."""


class WanOdeRecipe(WanStage):
    """The student learns four steps from the teacher's paths."""

    stage: Literal["ode"]
    ode: OdeSettings

    def build(self, parts: Parts) -> Stage[Any]:
        data = parts.data
        return OdeStage(
            self.ode,
            teacher=parts.network(self.teacher, trained=False),
            student=parts.network(self.student, trained=True),
            data=data,
            paths=data,
            codec=parts.codec,
            stream=data.stream,
            batch=self.train.batch,
            folder=parts.folder,
            origin=fingerprint(self.teacher, *parts.origin),
        )

    def activations(self, clip: memory.Clip) -> list[MemoryRow]:
        return memory.ode_rows(clip, self.student.config, self.teacher.config)

    def files(self, name: str, folder: Path | None) -> list[FileNeed]:
        if folder is None:
            return []
        made, wanted = len(list((folder / name / "paths").glob("*.safetensors"))), self.ode.paths
        label = f"{made} of {wanted} shards of paths; the others are made"
        return [FileNeed(name, "paths", label, made == wanted)]


class WanDmdRecipe(WanStage):
    """The student's streams are drawn to the teacher's distribution."""

    stage: Literal["dmd"]
    dmd: DmdSettings
    critic: WanNetwork

    @property
    def networks(self) -> dict[str, WanNetwork]:
        return {"student": self.student, "critic": self.critic, "teacher": self.teacher}

    def build(self, parts: Parts) -> Stage[Any]:
        data, reward = parts.data, self.dmd.reward
        return DmdStage(
            self.dmd,
            teacher=parts.network(self.teacher, trained=False),
            student=parts.network(self.student, trained=True),
            critic=parts.network(self.critic, trained=True),
            data=data,
            codec=parts.codec,
            stream=data.stream,
            batch=self.train.batch,
            reward=None if reward is None else load_reward(reward),
        )

    def activations(self, clip: memory.Clip) -> list[MemoryRow]:
        chunks = range(self.dmd.chunks - self.dmd.window_chunks, self.dmd.chunks)
        return memory.dmd_rows(clip, self.student.config, self.critic.config, self.teacher.config, chunks)

    def files(self, name: str, folder: Path | None) -> list[FileNeed]:
        return [
            FileNeed(name, "reward", str(part), part.is_dir())
            for score in single_scores(self.dmd.reward)
            if isinstance(score, VideoAlignSettings)
            for part in (score.checkpoint, score.base)
        ]


AnyStage = Annotated[WanOdeRecipe | WanDmdRecipe, Field(discriminator="stage")]


class WanRecipe(Recipe):
    """Distillation of Wan bundles, from prompts alone.

    Attributes:
        prompts: a .txt, .jsonl or .parquet file.
        negative_prompt: what guidance leads away from.
        codec: bundle whose text encoder, tokenizer and VAE are used.
        height, width: pixels of a video.
        latent_frames: of a rollout.
        stream: how the student streams.
        precision: of computation; trained weights are kept in float32.
        checkpointing: compute each block again in the backward.
    """

    kind: Literal["wan"] = "wan"
    prompts: UserPath
    negative_prompt: str
    codec: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    latent_frames: int = Field(gt=0)
    stream: StreamSettings
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    checkpointing: bool = True
    stages: dict[str, AnyStage] = Field(min_length=1)

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

    def default_device(self) -> torch.device:
        """This process's GPU, if there is one."""
        return processes.device()

    def build_stage(self, name: str, folder: Path) -> Stage[Any]:
        processes.join()
        stage, device, dtype = self.stages[name], self.default_device(), dtype_of(self.precision)
        prompts = PromptOrder(read_prompts(self.prompts), stage.train.seed)
        bundle = load_bundle(self.codec)
        codec = bundle.codec(dtype=dtype, device=device)
        sides = (self.height, self.width)
        if any(side % (2 * codec.spatial_stride) for side in sides):
            raise RecipeError(
                f"height and width must be multiples of {2 * codec.spatial_stride}, got {sides}"
            )
        height, width = (side // codec.spatial_stride for side in sides)
        shape = (codec.latent_channels, height, width)
        parts = Parts(
            data=WanData(prompts, self.stream, shape, self.latent_frames, stage.train.batch),
            codec=codec,
            text=FrozenText(bundle.text_encoder(dtype=dtype), self.negative_prompt, device),
            mesh=init_device_mesh(device.type, (processes.world_size(),)),
            dtype=dtype,
            checkpointing=self.checkpointing,
            folder=folder / name,
            origin=(self.negative_prompt, shape, self.latent_frames, self.prompts),
        )
        return stage.build(parts)

    def needs(self, name: str, processes: int, folder: Path | None) -> Needs:
        stage = self.stages[name]
        files = [
            FileNeed(name, "prompts", str(self.prompts), self.prompts.is_file()),
            FileNeed(name, "text encoder, VAE", self.codec, has_bundle(self.codec)),
        ]
        for what, network in stage.networks.items():
            files.append(FileNeed(name, f"{what}: bundle", network.bundle, has_bundle(network.bundle)))
            if network.weights is not None:
                files.append(
                    FileNeed(name, f"{what}: weights", network.weights, has_student(network.weights))
                )
        files += stage.files(name, folder)
        networks = {key: memory.network_size(n.config, processes) for key, n in stage.networks.items()}
        compute = memory.HALF if self.precision == "bfloat16" else memory.FLOAT
        clip = memory.Clip(
            stage.train.batch,
            self.latent_frames,
            self.height,
            self.width,
            self.stream,
            self.checkpointing,
            geometry_of(stage.student.channels),
        )
        rows = [
            *memory.weight_rows(networks, compute),
            *stage.activations(clip),
            memory.vae_row(stage.student.channels),
            *(memory.score_rows(stage.dmd.reward) if isinstance(stage, WanDmdRecipe) else ()),
        ]
        return Needs(files, networks, rows, memory.text_encoder_parameters() * memory.HALF)
