"""A bundle: a directory with everything that a stream needs, loaded part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrf.bundle.adapter_file import AdapterSpec
from pyrf.bundle.adapters import read_adapters
from pyrf.bundle.card import Card
from pyrf.bundle.codecs import load_tiny_codec, tiny_codec_file
from pyrf.bundle.contents import other_model, published_name
from pyrf.bundle.hub import find_bundle, find_student
from pyrf.bundle.json_file import BundleError
from pyrf.bundle.layout import Layout, find_layout
from pyrf.bundle.names import dit_from_diffusers
from pyrf.bundle.settings import BundleSettings, frame_defaults
from pyrf.bundle.states import peek_part, read_part, renamed
from pyrf.bundle.stream_choice import StreamAsked, StreamChoice, stream_choice
from pyrf.bundle.student import student_file, student_settings, student_stream
from pyrf.bundle.weights import (
    CheckpointError,
    Placement,
    check_names_and_shapes,
    load_weights,
    unfilled,
)
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.dit.adapter import Adapter
from pyrf.models.dit.merging import MergedWeights
from pyrf.models.dit.model import WanModel
from pyrf.models.text.encoder import BriefTextEncoder, TextEncoder, read_tokenizer

UNDISTILLED = (
    "nothing in its files says that it was trained to stream; a plain Wan model shows noise in a few steps; "
    "give the weights of a student"
)
"""What people are told of such a model."""


@dataclass(frozen=True)
class Bundle:
    """A model on disk. Its parts are read when asked for.

    Attributes:
        path: the directory.
        model_config: sizes of the transformer.
        stream_config: how the model streams.
        fps: frames per second of its videos.
        height, width: pixels of the videos it was trained on.
        student: a file of weights to use in place of the bundle's transformer.
        card: what the model knows.
        adapters: changes of the transformer, or of the student in its place.
        choice: how it was asked to stream.
        trained: what its files, or the student's, say of how the weights stream: fields of `StreamConfig`,
            and `fps`; empty where they say nothing.
    """

    path: Path
    model_config: ModelConfig
    stream_config: StreamConfig
    fps: float
    height: int
    width: int
    layout: Layout
    student: Path | None = None
    card: Card = field(default_factory=Card)
    adapters: tuple[Adapter, ...] = ()
    choice: StreamChoice = field(default_factory=StreamChoice)
    trained: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        student = "" if self.student is None else f" with student {self.student}"
        return f"<Bundle {self.path}{student}: {self.height} x {self.width} at {self.fps:g} fps>"

    @property
    def undistilled(self) -> bool:
        """Whether these are a plain model's own weights, as far as its files say."""
        return self.student is None and not self.trained.keys() - {"fps"}

    @property
    def tiny_codec(self) -> Path | None:
        """A tiny codec of the same latents, which lies in the folder beside the parts."""
        return tiny_codec_file(self.path)

    def transformer_weights(self) -> tuple[dict[str, Tensor], Path]:
        """Weights of the transformer, or of the student in its place, under official names; and their file.

        Every backend, the exporter and training read the transformer's weights here and nowhere else.
        Adapters are not in them: `transformer` merges those.

        Raises:
            CheckpointError: when the file is damaged.
        """
        if self.student is None:
            return self.layout.dit_tensors()
        tensors = read_part(self.student, "transformer")
        return renamed(tensors, dit_from_diffusers, self.student), self.student

    def transformer(self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> WanModel:
        """Load the transformer, or the student in its place, with the adapters merged at their strengths.

        Raises:
            CheckpointError: when the file is damaged or made for another network.
        """
        model = self.base_transformer(dtype, device)
        strengths = {adapter.name: adapter.strength for adapter in self.adapters}
        MergedWeights(model, self.adapters).merge(strengths)
        return model

    def base_transformer(
        self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> WanModel:
        """`transformer` without adapters. Weights are held once."""
        tensors, source = self.transformer_weights()
        with unfilled():
            model = WanModel(self.model_config)
        load_weights(model, tensors, source, dtype=dtype, device=device)
        return model.eval()

    def codec(
        self,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        *,
        for_gpu: bool | None = None,
        tiny: bool = False,
    ) -> Codec:
        """Load the codec; `dtype` is that of decoding. For `for_gpu` see `Placement`.

        Args:
            tiny: whether the one of `tiny_codec` takes its place.

        Raises:
            ValueError: when its files are damaged, or its latents are not the transformer's.
        """
        placement = Placement(dtype, device, for_gpu)
        if tiny and self.tiny_codec is not None:
            codec = load_tiny_codec(self.tiny_codec, placement, self.fps)
        else:
            codec = self.layout.codec(placement, fps=self.fps)
        if codec.latent_channels != self.model_config.in_channels:
            raise BundleError(
                f"{self.path}: the codec has {codec.latent_channels} latent channels, "
                f"the transformer {self.model_config.in_channels}"
            )
        return codec

    def text_encoder(
        self,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        *,
        keep: bool = True,
    ) -> TextEncoder:
        """Load tokenizer and text encoder.

        Args:
            keep: whether its weights stay; else they are read for each prompt, and dropped after it.

        Raises:
            ValueError: when their files are damaged, or their rows are not those the transformer reads.
        """
        tokenizer = read_tokenizer(self.layout.tokenizer)
        placement = Placement(dtype, device)
        network = self.layout.text_network(placement) if keep else None
        config = self.layout.text_config() if network is None else network.config
        if config.dim != self.model_config.text_dim:
            raise BundleError(
                f"{self.path}: the text encoder's rows have {config.dim} values, "
                f"the transformer reads {self.model_config.text_dim}"
            )
        if network is None:
            read = partial(self.layout.text_network, placement)
            return BriefTextEncoder(read, config, tokenizer, self.model_config.text_len)
        return TextEncoder(network, tokenizer, self.model_config.text_len)


def load_bundle(
    name: str | Path,
    *,
    student: str | Path | None = None,
    revision: str | None = None,
    adapters: Sequence[AdapterSpec] = (),
    stream: StreamAsked = (),
) -> Bundle:
    """Find a bundle and read its configuration; weights are loaded later, by the bundle's methods.

    Args:
        name: a model of the package ("valley", "tiny"), a directory in the diffusers layout or Wan's own, or
            a hub id "owner/name", which is downloaded.
        student: weights to use in place of the bundle's transformer: a local file or "owner/name/file.pt"
            on the hub; every published form of student file is read.
        revision: branch, tag or commit of a hub id.
        adapters: changes of the transformer (LoRA): files, or files with their strengths.
        stream: how it streams, where not as its files say: see `pyrf.bundle.stream_choice`.

    Raises:
        BundleError: when it is not found, one of its files is missing or damaged, or `stream` is of other
            weights.
        CheckpointError: when a file of weights is missing.
        ValueError: when `stream` is unknown, or its settings cannot be together.
    """
    choice = stream_choice(stream)
    # Absolute, as graphs may be exported from it later, and the host program may have moved by then.
    student_path = None if student is None else find_student(student).absolute()
    weights = None if student_path is None else student_file(student_path)
    path = find_bundle(name, revision=revision, dit_weights=student is None).absolute()
    layout = find_layout(path)
    layout.check(dit_weights=student is None)
    sizes = layout.model_config(text_len=ModelConfig.text_len, rope_theta=ModelConfig.rope_theta)
    said = layout.settings()
    settings = BundleSettings.from_dict({**frame_defaults(sizes), **said}, path / "model_index.json")
    config, card = settings.stream, settings.card
    if student_path is not None:
        config, said, card = (
            student_stream(student_path, config),
            student_settings(student_path),
            card.of_another_student(),
        )
    names = {f.name for f in fields(StreamConfig)} & said.keys()
    trained = {name: getattr(config, name) for name in names} | {n: v for n, v in said.items() if n == "fps"}
    model_config = layout.model_config(text_len=settings.text_len, rope_theta=settings.rope_theta)
    choice.check(published_name(model_config.dim, model_config.num_layers), trained, student_path or path)
    bundle = Bundle(
        path=path,
        model_config=model_config,
        stream_config=choice.applied(config),
        fps=float(choice.fps or settings.fps),
        height=settings.height,
        width=settings.width,
        layout=layout,
        student=weights,
        card=card,
        choice=choice,
        trained=trained,
    )
    if bundle.undistilled:
        bundle = replace(bundle, card=replace(card, limits=(*card.limits, UNDISTILLED)))
    _check_transformer(bundle)
    return replace(bundle, adapters=read_adapters(adapters, bundle.model_config))


def _check_transformer(bundle: Bundle) -> None:
    """Refuse weights of another model, by their names and shapes, before anything is loaded.

    Raises:
        CheckpointError: saying what they are.
    """
    source = bundle.student or bundle.layout.dit_path()
    tensors = renamed(peek_part(source, "transformer"), dit_from_diffusers, source)
    if difference := other_model(tensors, bundle.model_config):
        raise CheckpointError(
            f"{source}: another model's transformer: {difference}; give the model and the student of one size"
        )
    with unfilled():
        network = WanModel(bundle.model_config)
    check_names_and_shapes({name: t.shape for name, t in network.state_dict().items()}, tensors, source)
