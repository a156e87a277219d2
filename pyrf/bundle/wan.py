"""The layout of Wan's own releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pyrf.bundle.codecs import CodecSource, wan_family
from pyrf.bundle.json_file import JsonFile, naming, require_file, require_json
from pyrf.bundle.names import dit_from_diffusers
from pyrf.bundle.states import peek_part, read_part, renamed
from pyrf.bundle.student import WAN_CLASSES, stream_settings
from pyrf.bundle.text import config_of_weights, load_text
from pyrf.bundle.weights import Placement, find_weights, weight_files
from pyrf.config import ModelConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder

DIT_STEM = "diffusion_pytorch_model"


class WanLayout:
    """Wan's own release: one directory with config.json, the DiT, and pickles of VAE and text encoder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._family = wan_family(path)
        self._vae = path / self._family.wan_file
        self._text = path / "models_t5_umt5-xxl-enc-bf16.pth"

    def check(self, *, dit_weights: bool) -> None:
        if dit_weights:
            self.dit_path()
        for file in (self._vae, self._text):
            require_file(file)
        require_json(self.tokenizer / "tokenizer.json")
        peek_part(self._vae, "codec")
        peek_part(self._text, "text encoder")

    def files(self, *, dit_weights: bool) -> list[Path]:
        dit = weight_files(self.dit_path()) if dit_weights else []
        return [self.path / "config.json", self._vae, self._text, self.tokenizer / "tokenizer.json", *dit]

    def settings(self) -> dict[str, Any]:
        return stream_settings(JsonFile(self.path / "config.json"))

    def model_config(self, *, text_len: int, rope_theta: float) -> ModelConfig:
        file = JsonFile(self.path / "config.json")
        file.require("_class_name", *WAN_CLASSES, default=WAN_CLASSES[0])
        file.require("model_type", "t2v", "ti2v")
        with naming(file.path):
            return ModelConfig(
                dim=file.whole("dim"),
                ffn_dim=file.whole("ffn_dim"),
                num_heads=file.whole("num_heads"),
                num_layers=file.whole("num_layers"),
                text_len=file.whole("text_len", text_len),
                text_dim=file.whole("text_dim", ModelConfig.text_dim),
                freq_dim=file.whole("freq_dim", ModelConfig.freq_dim),
                in_channels=file.whole("in_dim", ModelConfig.in_channels),
                out_channels=file.whole("out_dim", ModelConfig.out_channels),
                eps=file.number("eps", ModelConfig.eps),
                rope_theta=rope_theta,
            )

    def dit_path(self) -> Path:
        return find_weights(self.path, DIT_STEM)

    def dit_tensors(self) -> tuple[dict[str, Tensor], Path]:
        path = self.dit_path()
        return renamed(read_part(path, "transformer"), dit_from_diffusers, path), path

    def codec(self, placement: Placement, *, fps: float) -> Codec:
        # The file has no config beside it, so what a family does not fix comes from the weights.
        config, tensors = self._family.from_wan(read_part(self._vae, "codec"), self._vae)
        return self._family.load(CodecSource(self._vae, config, self._vae, tensors), placement, fps)

    def text_config(self) -> UMT5Config:
        return config_of_weights(peek_part(self._text, "text encoder"))

    def text_network(self, placement: Placement) -> UMT5Encoder:
        tensors = read_part(self._text, "text encoder")
        return load_text(config_of_weights(tensors), tensors, self._text, placement)

    @property
    def tokenizer(self) -> Path:
        return self.path / "google" / "umt5-xxl"
