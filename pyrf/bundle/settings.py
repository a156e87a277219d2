"""What a bundle says beside the sizes of its networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pyrf.bundle.card import Card
from pyrf.bundle.json_file import BundleError, naming
from pyrf.checks import check_positive, check_whole
from pyrf.config import MAX_FPS, MIN_FPS, ModelConfig, StreamConfig
from pyrf.models import wan22
from pyrf.models.wan21 import FPS, HEIGHT, WIDTH


def frame_defaults(model: ModelConfig) -> dict[str, Any]:
    """What a bundle of a transformer means where it says nothing of its frames, and is not as Wan2.1."""
    if model.in_channels != wan22.LATENTS.latent_channels:
        return {}
    return {"fps": wan22.FPS, "height": wan22.HEIGHT, "width": wan22.WIDTH}


@dataclass(frozen=True)
class BundleSettings:
    """The object `pyrf` of `model_index.json`, flat; the defaults are those of Wan2.1 and Reward Forcing.

    Attributes:
        stream: its fields stand beside the others.
        fps: frames per second of the videos.
        height, width: pixels of the videos that the model was trained on.
        text_len, rope_theta: sizes of the transformer for which diffusers' config has no place.
        card: what the model knows.

    Raises:
        ValueError: when a value is of another kind or size.
    """

    stream: StreamConfig = field(default_factory=StreamConfig)
    fps: float = FPS
    height: int = HEIGHT
    width: int = WIDTH
    text_len: int = ModelConfig.text_len
    rope_theta: float = ModelConfig.rope_theta
    card: Card = field(default_factory=Card)

    def __post_init__(self) -> None:
        for name in ("height", "width", "text_len"):
            check_whole(name, getattr(self, name))
        for name in ("fps", "rope_theta"):
            check_positive(name, getattr(self, name))
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise ValueError(f"fps must lie in {MIN_FPS:g}..{MAX_FPS:g}, got {self.fps}")

    def to_dict(self) -> dict[str, Any]:
        """What is written."""
        values = asdict(self)
        stream, card = values.pop("stream"), self.card.to_dict()
        del values["card"]
        return {**stream, **values, **({"card": card} if card else {})}

    @classmethod
    def from_dict(cls, values: dict[str, Any], path: Path) -> BundleSettings:
        """Inverse of `to_dict`; what is not there has its default.

        Raises:
            BundleError: naming `path`, when a setting is unknown or has a wrong value.
        """
        own = {f.name for f in fields(cls)} - {"stream"}
        stream_names = {f.name for f in fields(StreamConfig)}
        if unknown := sorted(set(values) - own - stream_names):
            raise BundleError(f"{path}: pyrf has unknown settings {unknown}")
        if "card" in values:
            values = {**values, "card": Card.from_dict(values["card"], path)}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        values = {**values, **lists}  # JSON has no tuples
        with naming(path):
            stream = StreamConfig(**{name: value for name, value in values.items() if name in stream_names})
            return cls(stream=stream, **{name: value for name, value in values.items() if name in own})
