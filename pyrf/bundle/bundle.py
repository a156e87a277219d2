"""A bundle: a directory with everything that a stream needs, loaded part by part, and written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pyrf.bundle.hub import BundleError, find_bundle, find_student
from pyrf.bundle.layout import DIT_STEM, TEXT_STEM, VAE_STEM, Layout, Placement, find_layout
from pyrf.bundle.names import dit_from_diffusers, dit_to_diffusers, t5_to_transformers
from pyrf.bundle.weights import load_weights, read_student, unfilled
from pyrf.config import MAX_FPS, MIN_FPS, PATCH, ModelConfig, StreamConfig, check_positive, check_whole
from pyrf.files import whole_folder
from pyrf.models.codecs.codec import Codec
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.models.dit.model import WanModel
from pyrf.models.text.encoder import TextEncoder, read_tokenizer

__all__ = ["Bundle", "BundleError", "load_bundle", "save_bundle"]

_VIDEO_DEFAULTS = {"fps": 16.0, "height": 480, "width": 832}
_MODEL_DEFAULTS = {"text_len": 512, "rope_theta": 10000.0}


@dataclass(frozen=True)
class Bundle:
    """A model on disk. Its parts are read when asked for.

    Attributes:
        path: the directory.
        model_config: sizes of the transformer.
        stream_config: how the model streams.
        fps: frames a second of its videos.
        height, width: pixels of the videos it was trained on.
        student: a file of weights to use in place of the bundle's transformer.
    """

    path: Path
    model_config: ModelConfig
    stream_config: StreamConfig
    fps: float
    height: int
    width: int
    layout: Layout
    student: Path | None = None

    def transformer_weights(self) -> tuple[dict[str, Tensor], Path]:
        """Weights of the transformer, or of the student in its place, under official names; and their file.

        Raises:
            CheckpointError: when the file is damaged.
        """
        if self.student is None:
            return self.layout.dit_tensors()
        return {dit_from_diffusers(name): t for name, t in read_student(self.student).items()}, self.student

    def transformer(self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> WanModel:
        """Load the transformer, or the student in its place. Weights are held once.

        Raises:
            CheckpointError: when the file is damaged or made for another network.
        """
        tensors, source = self.transformer_weights()
        with unfilled():
            model = WanModel(self.model_config)
        load_weights(model, tensors, source, dtype=dtype, device=device)
        return model.eval()

    def codec(self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Codec:
        """Load the codec; `dtype` is that of decoding.

        Raises:
            ValueError: when its files are damaged, or its latents are not the transformer's.
        """
        codec = self.layout.codec(Placement(dtype, device), fps=self.fps)
        if codec.latent_channels != self.model_config.in_channels:
            raise BundleError(
                f"{self.path}: the codec has {codec.latent_channels} latent channels, "
                f"the transformer {self.model_config.in_channels}"
            )
        return codec

    def text_encoder(
        self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> TextEncoder:
        """Load tokenizer and text encoder.

        Raises:
            ValueError: when their files are damaged, or their rows are not those the transformer reads.
        """
        tokenizer = read_tokenizer(self.layout.tokenizer)
        network = self.layout.text_network(Placement(dtype, device))
        if network.config.dim != self.model_config.text_dim:
            raise BundleError(
                f"{self.path}: the text encoder's rows have {network.config.dim} values, "
                f"the transformer reads {self.model_config.text_dim}"
            )
        return TextEncoder(network, tokenizer, self.model_config.text_len)


def load_bundle(
    name: str | Path, *, student: str | Path | None = None, revision: str | None = None
) -> Bundle:
    """Find a bundle and read its configuration; weights are loaded later, by the bundle's methods.

    Args:
        name: "tiny" (comes with the package), a directory in the diffusers layout or Wan's own, or a
            hub id "owner/name", which is downloaded.
        student: weights to use in place of the bundle's transformer: a local file or "owner/name/file.pt"
            on the hub; every published form of student file is read.
        revision: branch, tag or commit of a hub id.

    Raises:
        BundleError: when it is not found, or one of its files is missing or damaged.
        CheckpointError: when a file of weights is missing.
    """
    student_path = None if student is None else find_student(student)
    path = find_bundle(name, revision=revision, dit_weights=student is None)
    layout = find_layout(path)
    layout.check(dit_weights=student is None)
    settings = layout.settings()
    stream_names = {field.name for field in fields(StreamConfig)}
    if unknown := sorted(set(settings) - stream_names - set(_VIDEO_DEFAULTS) - set(_MODEL_DEFAULTS)):
        raise BundleError(f"{path / 'model_index.json'}: pyrf has unknown settings {unknown}")
    values = _VIDEO_DEFAULTS | _MODEL_DEFAULTS | settings
    try:
        for key in ("height", "width", "text_len"):
            check_whole(key, values[key])
        for key in ("fps", "rope_theta"):
            check_positive(key, values[key])
        if not MIN_FPS <= values["fps"] <= MAX_FPS:
            raise ValueError(f"fps must lie in {MIN_FPS:g}..{MAX_FPS:g}, got {values['fps']}")
    except ValueError as error:
        raise BundleError(f"{path / 'model_index.json'}: {error}") from None
    return Bundle(
        path=path,
        model_config=layout.model_config(text_len=values["text_len"], rope_theta=values["rope_theta"]),
        stream_config=_stream_config(path, {k: v for k, v in settings.items() if k in stream_names}),
        fps=float(values["fps"]),
        height=values["height"],
        width=values["width"],
        layout=layout,
        student=student_path,
    )


def _stream_config(path: Path, values: dict[str, Any]) -> StreamConfig:
    try:
        if isinstance(values.get("denoising_steps"), list):
            values["denoising_steps"] = tuple(values["denoising_steps"])
        return StreamConfig(**values)
    except ValueError as error:
        raise BundleError(f"{path / 'model_index.json'}: {error}") from error


def save_bundle(
    path: str | Path,
    *,
    transformer: WanModel,
    codec: Codec,
    text_encoder: TextEncoder,
    stream_config: StreamConfig,
    height: int,
    width: int,
) -> Path:
    """Write a bundle in the diffusers layout, whole or not at all.

    Everything is written to a directory beside `path`, which takes its name at the end. Weights keep the
    dtype they have.

    Raises:
        BundleError: when `path` exists or cannot be written.
    """
    path = Path(path)
    config = transformer.config
    vae, vae_weights = _codec_content(codec)
    index = {
        "_class_name": "WanPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["pyrf" if vae["_class_name"] == "TAEHV" else "diffusers", vae["_class_name"]],
        "pyrf": {
            **asdict(stream_config),
            "text_len": config.text_len,
            "rope_theta": config.rope_theta,
            "fps": codec.fps,
            "height": height,
            "width": width,
        },
    }
    try:
        with whole_folder(path) as temporary:
            _write_json(temporary / "model_index.json", index)
            _write_dit(temporary / "transformer", transformer)
            _write_json(temporary / "vae" / "config.json", vae)
            _write_weights(temporary / "vae" / f"{VAE_STEM}.safetensors", vae_weights)
            _write_text(temporary, text_encoder)
            _write_json(
                temporary / "scheduler" / "scheduler_config.json",
                {
                    "_class_name": "FlowMatchEulerDiscreteScheduler",
                    "num_train_timesteps": 1000,
                    "shift": stream_config.shift,
                },
            )
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)


def _write_dit(folder: Path, model: WanModel) -> None:
    config = model.config
    _write_json(
        folder / "config.json",
        {
            "_class_name": "WanTransformer3DModel",
            "patch_size": list(PATCH),
            "num_attention_heads": config.num_heads,
            "attention_head_dim": config.head_dim,
            "in_channels": config.in_channels,
            "out_channels": config.out_channels,
            "text_dim": config.text_dim,
            "freq_dim": config.freq_dim,
            "ffn_dim": config.ffn_dim,
            "num_layers": config.num_layers,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "eps": config.eps,
        },
    )
    tensors = {dit_to_diffusers(name): tensor for name, tensor in model.state_dict().items()}
    _write_weights(folder / f"{DIT_STEM}.safetensors", tensors)


def _codec_content(codec: Codec) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights of a codec."""
    if isinstance(codec, TAEHVCodec):
        return codec.network.config.to_dict(), codec.network.state_dict()
    from pyrf.models.codecs.wan_vae import WanVAE  # imports diffusers: not before there may be one

    if not isinstance(codec, WanVAE):
        raise BundleError(f"cannot save a {type(codec).__name__}; a bundle's codec is TAEHVCodec or WanVAE")
    values = {name: value for name, value in codec.network.config.items() if not name.startswith("_")}
    return {"_class_name": "AutoencoderKLWan", **values}, codec.network.state_dict()


def _write_text(folder: Path, text_encoder: TextEncoder) -> None:
    config = text_encoder.network.config
    _write_json(
        folder / "text_encoder" / "config.json",
        {
            "architectures": ["UMT5EncoderModel"],
            "model_type": "umt5",
            "vocab_size": config.vocab_size,
            "d_model": config.dim,
            "d_kv": config.attention_dim // config.num_heads,
            "d_ff": config.ffn_dim,
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "relative_attention_num_buckets": config.num_buckets,
            "relative_attention_max_distance": config.max_distance,
            "layer_norm_epsilon": config.eps,
            "feed_forward_proj": "gated-gelu",
        },
    )
    tensors = {t5_to_transformers(name): t for name, t in text_encoder.network.state_dict().items()}
    _write_weights(folder / "text_encoder" / f"{TEXT_STEM}.safetensors", tensors)
    _write_json(
        folder / "tokenizer" / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text_encoder.text_len},
    )
    text_encoder.tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
