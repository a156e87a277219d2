"""How a model lies on disk: the diffusers layout, and Wan's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pyrf.bundle.hub import BundleError
from pyrf.bundle.names import dit_from_diffusers, t5_from_transformers, vae_to_diffusers
from pyrf.bundle.weights import find_weights, load_weights, read_tensors, unfilled, weight_files
from pyrf.config import PATCH, ModelConfig, check_positive, check_whole
from pyrf.models.codecs.codec import Codec
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder

DIT_STEM = VAE_STEM = "diffusion_pytorch_model"
TEXT_STEM = "model"


class Placement(NamedTuple):
    """Where loaded weights go."""

    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"


class JsonFile:
    """A JSON object on disk, whose values are read with a check.

    Raises:
        BundleError: when it is missing, damaged or not an object; from its methods, when a value is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BundleError(f"{path}: missing or unreadable ({error.strerror})") from error
        except ValueError as error:
            raise BundleError(f"{path}: damaged JSON ({error})") from error
        if not isinstance(self.values, dict):
            raise BundleError(f"{path}: expected a JSON object, found {type(self.values).__name__}")

    def number(self, name: str, default: float) -> float:
        """The value of `name`, positive and finite."""
        value: float = self.values.get(name, default)
        _guard(self.path, check_positive, name, value)
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """The value of `name`, a whole number of 1 or more."""
        value: int = self.values.get(name, default)
        _guard(self.path, check_whole, name, value)
        return value

    def require(self, name: str, expected: object, *, default: object = None) -> None:
        """Refuse any value of `name` but `expected`; a file without it has `default`."""
        found = self.values.get(name, default)
        if found != expected:
            raise BundleError(f"{self.path}: {name} must be {expected!r}, found {found!r}")


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

    def dit_tensors(self) -> tuple[dict[str, Tensor], Path]:
        """The transformer's weights under official names, and the file they come from."""

    def codec(self, placement: Placement, *, fps: float) -> Codec: ...

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
    if (path / "config.json").is_file():
        return WanLayout(path)
    raise BundleError(
        f"{path}: not a bundle; it has neither model_index.json (diffusers layout) nor Wan's config.json"
    )


class DiffusersLayout:
    """model_index.json, transformer/, vae/, text_encoder/, tokenizer/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, *, dit_weights: bool) -> None:
        JsonFile(self.path / "model_index.json").require("_class_name", "WanPipeline")
        if dit_weights:
            find_weights(self.path / "transformer", DIT_STEM)
        for part, stem in (("vae", VAE_STEM), ("text_encoder", TEXT_STEM)):
            JsonFile(self.path / part / "config.json")
            find_weights(self.path / part, stem)
        _require_file(self.tokenizer / "tokenizer.json")

    def files(self, *, dit_weights: bool) -> list[Path]:
        stems = {"vae": VAE_STEM, "text_encoder": TEXT_STEM}
        if dit_weights:
            stems["transformer"] = DIT_STEM
        weights = [find_weights(self.path / part, stem) for part, stem in stems.items()]
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
        return settings

    def model_config(self, *, text_len: int, rope_theta: float) -> ModelConfig:
        file = JsonFile(self.path / "transformer" / "config.json")
        file.require("_class_name", "WanTransformer3DModel")
        file.require("patch_size", list(PATCH), default=list(PATCH))
        file.require("cross_attn_norm", True, default=True)
        file.require("qk_norm", "rms_norm_across_heads", default="rms_norm_across_heads")
        for image_part in ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len"):
            file.require(image_part, None)
        heads = file.whole("num_attention_heads")
        values = {name: file.whole(name) for name in ("ffn_dim", "num_layers", "text_dim")}
        return _model_config(
            file,
            dim=heads * file.whole("attention_head_dim"),
            num_heads=heads,
            text_len=text_len,
            freq_dim=file.whole("freq_dim", 256),
            in_channels=file.whole("in_channels", 16),
            out_channels=file.whole("out_channels", 16),
            eps=file.number("eps", 1e-6),
            rope_theta=rope_theta,
            **values,
        )

    def dit_tensors(self) -> tuple[dict[str, Tensor], Path]:
        path = find_weights(self.path / "transformer", DIT_STEM)
        return {dit_from_diffusers(name): tensor for name, tensor in read_tensors(path).items()}, path

    def codec(self, placement: Placement, *, fps: float) -> Codec:
        file = JsonFile(self.path / "vae" / "config.json")
        path = find_weights(self.path / "vae", VAE_STEM)
        kind = file.values.get("_class_name")
        if kind == "TAEHV":
            return _load_taehv(file, read_tensors(path), path, placement, fps)
        if kind == "AutoencoderKLWan":
            return _load_wan_vae(file.values, file.path, read_tensors(path), path, placement, fps)
        raise BundleError(f"{file.path}: _class_name must be AutoencoderKLWan or TAEHV, found {kind!r}")

    def text_network(self, placement: Placement) -> UMT5Encoder:
        file = JsonFile(self.path / "text_encoder" / "config.json")
        file.require("model_type", "umt5")
        file.require("feed_forward_proj", "gated-gelu", default="gated-gelu")
        heads = file.whole("num_heads")
        config = _guard(
            file.path,
            UMT5Config,
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
        path = find_weights(self.path / "text_encoder", TEXT_STEM)
        tensors = read_tensors(path)
        if "shared.weight" in tensors:  # the same table, which some writers store twice
            tensors.pop("encoder.embed_tokens.weight", None)
        return _load_text(config, tensors, path, placement)

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"


class WanLayout:
    """Wan's own release: one directory with config.json, the DiT, and pickles of VAE and text encoder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._vae = path / "Wan2.1_VAE.pth"
        self._text = path / "models_t5_umt5-xxl-enc-bf16.pth"

    def check(self, *, dit_weights: bool) -> None:
        if dit_weights:
            find_weights(self.path, DIT_STEM)
        for file in (self._vae, self._text, self.tokenizer / "tokenizer.json"):
            _require_file(file)

    def files(self, *, dit_weights: bool) -> list[Path]:
        dit = weight_files(find_weights(self.path, DIT_STEM)) if dit_weights else []
        return [self.path / "config.json", self._vae, self._text, self.tokenizer / "tokenizer.json", *dit]

    def settings(self) -> dict[str, Any]:
        return {}

    def model_config(self, *, text_len: int, rope_theta: float) -> ModelConfig:
        file = JsonFile(self.path / "config.json")
        file.require("_class_name", "WanModel", default="WanModel")
        file.require("model_type", "t2v")
        values = {name: file.whole(name) for name in ("dim", "ffn_dim", "num_heads", "num_layers")}
        return _model_config(
            file,
            text_len=file.whole("text_len", text_len),
            text_dim=file.whole("text_dim", 4096),
            freq_dim=file.whole("freq_dim", 256),
            in_channels=file.whole("in_dim", 16),
            out_channels=file.whole("out_dim", 16),
            eps=file.number("eps", 1e-6),
            rope_theta=rope_theta,
            **values,
        )

    def dit_tensors(self) -> tuple[dict[str, Tensor], Path]:
        path = find_weights(self.path, DIT_STEM)
        return read_tensors(path), path

    def codec(self, placement: Placement, *, fps: float) -> Codec:
        tensors = {vae_to_diffusers(name): t for name, t in read_tensors(self._vae).items()}
        config = {}  # the file has no config beside it, so the two widths come from the weights
        for name, key in (("base_dim", "encoder.conv_in.weight"), ("z_dim", "post_quant_conv.weight")):
            if key in tensors:
                config[name] = tensors[key].shape[0]
        return _load_wan_vae(config, self._vae, tensors, self._vae, placement, fps)

    def text_network(self, placement: Placement) -> UMT5Encoder:
        tensors = read_tensors(self._text)
        return _load_text(_text_config(tensors), tensors, self._text, placement)

    @property
    def tokenizer(self) -> Path:
        return self.path / "google" / "umt5-xxl"


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle")


def _guard(path: Path, build: Any, *args: Any, **values: Any) -> Any:
    """`build(*args, **values)`, where a refusal names the file that the values come from."""
    try:
        return build(*args, **values)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}") from error


def _model_config(file: JsonFile, **values: Any) -> ModelConfig:
    config: ModelConfig = _guard(file.path, ModelConfig, **values)
    return config


def _text_config(tensors: dict[str, Tensor]) -> UMT5Config:
    """Sizes of the text encoder from its official weights; those of UMT5-XXL where they do not tell."""
    sizes: dict[str, int] = {}
    for key, rows, columns in (
        ("token_embedding.weight", "vocab_size", "dim"),
        ("blocks.0.attn.q.weight", "attention_dim", "dim"),
        ("blocks.0.ffn.fc1.weight", "ffn_dim", "dim"),
        ("blocks.0.pos_embedding.embedding.weight", "num_buckets", "num_heads"),
    ):
        if key in tensors and tensors[key].ndim == 2:
            sizes |= {rows: tensors[key].shape[0], columns: tensors[key].shape[1]}
    if layers := {match[1] for match in (re.match(r"blocks\.(\d+)\.", name) for name in tensors) if match}:
        sizes["num_layers"] = len(layers)
    return UMT5Config(**sizes)


def _load_text(
    config: UMT5Config, tensors: dict[str, Tensor], path: Path, placement: Placement
) -> UMT5Encoder:
    with unfilled():
        network = UMT5Encoder(config)
    tensors = {t5_from_transformers(name): tensor for name, tensor in tensors.items()}
    load_weights(network, tensors, path, dtype=placement.dtype, device=placement.device)
    return network


def _load_taehv(
    file: JsonFile, tensors: dict[str, Tensor], path: Path, placement: Placement, fps: float
) -> Codec:
    from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig

    config = _guard(file.path, TAEHVConfig.from_dict, file.values)
    with unfilled():
        network = TAEHV(config)
    load_weights(network, tensors, path, device=placement.device)
    network.decoder.to(placement.dtype)  # encoding stays in fp32, as with the Wan VAE
    return TAEHVCodec(network, fps=fps)


def _load_wan_vae(
    config: dict[str, Any],
    config_path: Path,
    tensors: dict[str, Tensor],
    path: Path,
    placement: Placement,
    fps: float,
) -> Codec:
    from pyrf.models.codecs.wan_vae import WanVAE, build_network

    with unfilled():
        network = _guard(config_path, build_network, config)
    # Encoding is done in fp32 in any case, so the encoder's weights must not pass through a smaller dtype.
    load_weights(network, tensors, path, device=placement.device)
    return WanVAE(network, decoder_dtype=placement.dtype, fps=fps)
