"""How a model lies on disk: what every layout offers, and which one a directory has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from pyrf.bundle.diffusers import DiffusersLayout
from pyrf.bundle.json_file import BundleError, JsonFile
from pyrf.bundle.student import DIT_CLASSES, refuse_distributed
from pyrf.bundle.wan import WanLayout
from pyrf.bundle.weights import Placement
from pyrf.config import ModelConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder


class Layout(Protocol):
    """A directory with the parts of a model."""

    path: Path

    def check(self, *, dit_weights: bool) -> None:
        """Refuse a directory with a part missing, before minutes of loading."""

    def files(self, *, dit_weights: bool) -> list[Path]:
        """What the parts are read from, with the transformer's weights or without.

        Raises:
            CheckpointError: when a file of weights is missing, or an index of shards damaged.
        """

    def settings(self) -> dict[str, Any]:
        """What is said about streams, see `Bundle`."""

    def model_config(self, *, text_len: int, rope_theta: float) -> ModelConfig: ...

    def dit_path(self) -> Path:
        """The file of the transformer's weights, or the index of its shards."""

    def dit_tensors(self) -> tuple[dict[str, Tensor], Path]:
        """The transformer's weights under official names, and the file they come from."""

    def codec(self, placement: Placement, *, fps: float) -> Codec: ...

    def text_config(self) -> UMT5Config:
        """Sizes of the text encoder; its values are not read."""

    def text_network(self, placement: Placement) -> UMT5Encoder: ...

    @property
    def tokenizer(self) -> Path:
        """The directory with tokenizer.json."""


def find_layout(path: Path) -> Layout:
    """Which of the layouts `path` has.

    Raises:
        BundleError: when it has neither.
    """
    if (path / "model_index.json").is_file():
        return DiffusersLayout(path)
    if (path / "high_noise_model").is_dir() or (path / "low_noise_model").is_dir():
        raise BundleError(
            f"{path}: Wan2.2-A14B, a Wan2.2 model of two experts (high_noise_model, low_noise_model), of "
            "which one alone gives wrong pictures; give a model of one transformer, such as Wan2.2-TI2V-5B"
        )
    if (path / "config.json").is_file():
        if JsonFile(path / "config.json").values.get("_class_name") in DIT_CLASSES:
            raise BundleError(
                f"{path}: a transformer alone; give it as the student of a model, or the folder that holds it"
            )
        return WanLayout(path)
    inside = [
        folder
        for folder in sorted(path.glob("*/*")) + sorted(path.glob("*"))
        if (folder / "model_index.json").is_file()
    ]
    if inside:
        raise BundleError(f"{path}: not a bundle, but {inside[0]} is one")
    refuse_distributed(path)
    raise BundleError(
        f"{path}: not a bundle; it has neither model_index.json (diffusers layout) nor Wan's config.json"
    )
