"""The layout of the diffusers library, which pyrf writes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pyrf.bundle.codecs import CodecSource, family_of
from pyrf.bundle.contents import Part
from pyrf.bundle.json_file import BundleError, JsonFile, naming, require_json
from pyrf.bundle.names import dit_from_diffusers
from pyrf.bundle.states import peek_part, read_part, renamed
from pyrf.bundle.student import DIT_CLASSES, refuse_other_pipelines, said_settings, stream_settings
from pyrf.bundle.text import load_text
from pyrf.bundle.weights import Placement, find_weights, weight_files
from pyrf.config import PATCH, ModelConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder

DIT_STEM = VAE_STEM = "diffusion_pytorch_model"
TEXT_STEM = "model"
DIT_STEMS = VAE_STEMS = (DIT_STEM, "model")
TEXT_STEMS = (TEXT_STEM, "pytorch_model")
"""Names that files of weights have, ours first."""

_PARTS: tuple[tuple[str, tuple[str, ...], Part], ...] = (
    ("vae", VAE_STEMS, "codec"),
    ("text_encoder", TEXT_STEMS, "text encoder"),
)
"""What every bundle has beside its transformer."""


class DiffusersLayout:
    """model_index.json, transformer/, vae/, text_encoder/, tokenizer/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, *, dit_weights: bool) -> None:
        index = JsonFile(self.path / "model_index.json")
        index.require("_class_name", "WanPipeline", "WanCausalDMDPipeline")
        refuse_other_pipelines(index)
        if dit_weights:
            self.dit_path()
        for folder, stems, part in _PARTS:
            JsonFile(self.path / folder / "config.json")
            peek_part(find_weights(self.path / folder, *stems), part)
        require_json(self.tokenizer / "tokenizer.json")

    def files(self, *, dit_weights: bool) -> list[Path]:
        weights = [find_weights(self.path / folder, *stems) for folder, stems, _ in _PARTS]
        if dit_weights:
            weights.append(self.dit_path())
        return [
            self.path / "model_index.json",
            *(self.path / part / "config.json" for part in ("transformer", "vae", "text_encoder")),
            self.tokenizer / "tokenizer.json",
            *(file for path in weights for file in weight_files(path)),
        ]

    def settings(self) -> dict[str, Any]:
        index = JsonFile(self.path / "model_index.json")
        settings = index.values.get("pyrf", {})
        if not isinstance(settings, dict):
            raise BundleError(f"{index.path}: pyrf must be an object, found {settings!r}")
        config = JsonFile(self.path / "transformer" / "config.json")
        own = said_settings(config)
        for name in sorted(own.keys() & settings.keys()):
            if own[name] != settings[name]:
                raise BundleError(
                    f"{config.path}: says {name} {own[name]!r}, and pyrf in model_index.json says "
                    f"{settings[name]!r}; make them agree"
                )
        return {**stream_settings(config), **settings}

    def model_config(self, *, text_len: int, rope_theta: float) -> ModelConfig:
        file = JsonFile(self.path / "transformer" / "config.json")
        file.require("_class_name", *DIT_CLASSES)
        file.require("patch_size", list(PATCH), default=list(PATCH))
        file.require("cross_attn_norm", True, default=True)
        file.require("qk_norm", "rms_norm_across_heads", default="rms_norm_across_heads")
        for image_part in ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len"):
            file.require(image_part, None)
        heads = file.whole("num_attention_heads")
        with naming(file.path):
            return ModelConfig(
                dim=heads * file.whole("attention_head_dim"),
                ffn_dim=file.whole("ffn_dim"),
                num_heads=heads,
                num_layers=file.whole("num_layers"),
                text_len=text_len,
                text_dim=file.whole("text_dim"),
                freq_dim=file.whole("freq_dim", ModelConfig.freq_dim),
                in_channels=file.whole("in_channels", ModelConfig.in_channels),
                out_channels=file.whole("out_channels", ModelConfig.out_channels),
                eps=file.number("eps", ModelConfig.eps),
                rope_theta=rope_theta,
            )

    def dit_path(self) -> Path:
        return find_weights(self.path / "transformer", *DIT_STEMS)

    def dit_tensors(self) -> tuple[dict[str, Tensor], Path]:
        path = self.dit_path()
        return renamed(read_part(path, "transformer"), dit_from_diffusers, path), path

    def codec(self, placement: Placement, *, fps: float) -> Codec:
        file = JsonFile(self.path / "vae" / "config.json")
        path = find_weights(self.path / "vae", *VAE_STEMS)
        source = CodecSource(file.path, file.values, path, read_part(path, "codec"))
        return family_of(file).load(source, placement, fps)

    def text_config(self) -> UMT5Config:
        file = JsonFile(self.path / "text_encoder" / "config.json")
        file.require("model_type", "umt5")
        file.require("feed_forward_proj", "gated-gelu", default="gated-gelu")
        heads = file.whole("num_heads")
        with naming(file.path):
            return UMT5Config(
                vocab_size=file.whole("vocab_size"),
                dim=file.whole("d_model"),
                attention_dim=heads * file.whole("d_kv"),
                ffn_dim=file.whole("d_ff"),
                num_heads=heads,
                num_layers=file.whole("num_layers"),
                num_buckets=file.whole("relative_attention_num_buckets", 32),
                max_distance=file.whole("relative_attention_max_distance", 128),
                eps=file.number("layer_norm_epsilon", 1e-6),
            )

    def text_network(self, placement: Placement) -> UMT5Encoder:
        path = find_weights(self.path / "text_encoder", *TEXT_STEMS)
        return load_text(self.text_config(), read_part(path, "text encoder"), path, placement)

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"
