"""Bundles are written in the diffusers layout, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pyrf.bundle.card import Card
from pyrf.bundle.codecs import codec_content
from pyrf.bundle.diffusers import DIT_STEM, TEXT_STEM, VAE_STEM
from pyrf.bundle.json_file import BundleError, JsonFile
from pyrf.bundle.names import dit_to_diffusers
from pyrf.bundle.settings import BundleSettings
from pyrf.bundle.text import text_content
from pyrf.config import PATCH, StreamConfig
from pyrf.files import expanded, whole_file, whole_folder
from pyrf.models.codecs.codec import Codec
from pyrf.models.dit.model import WanModel
from pyrf.models.text.encoder import TextEncoder


def save_bundle(
    path: str | Path,
    *,
    transformer: WanModel,
    codec: Codec,
    text_encoder: TextEncoder,
    stream_config: StreamConfig,
    height: int,
    width: int,
    card: Card | None = None,
) -> Path:
    """Write a bundle in the diffusers layout, whole or not at all.

    Everything is written to a directory beside `path`, which takes its name at the end. Weights keep the
    dtype they have.

    Args:
        card: what the model knows; by default the bundle does not say.

    Raises:
        BundleError: when `path` exists or cannot be written.
    """
    path = Path(expanded(path))
    config = transformer.config
    family, vae, vae_weights = codec_content(codec)
    index = {
        "_class_name": "WanPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": [family.library, family.class_name],
        "pyrf": BundleSettings(
            stream=stream_config,
            fps=codec.fps,
            height=height,
            width=width,
            text_len=config.text_len,
            rope_theta=config.rope_theta,
            card=card or Card(),
        ).to_dict(),
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


def write_card(path: str | Path, card: Card) -> None:
    """Write what a bundle's model knows anew; all else in its folder stays.

    Raises:
        BundleError: when the folder holds no bundle of pyrf, or cannot be written.
    """
    file = Path(expanded(path)) / "model_index.json"
    index = JsonFile(file).values
    if not isinstance(index.get("pyrf"), dict):
        raise BundleError(f"{file}: no bundle of pyrf, so it has no place for a card")
    index["pyrf"]["card"] = card.to_dict()
    try:
        with whole_file(file) as temporary:
            _write_json(temporary, index)
    except OSError as error:
        raise BundleError(f"cannot write {file}: {error.strerror or error}") from error


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


def _write_text(folder: Path, text_encoder: TextEncoder) -> None:
    config, tensors = text_content(text_encoder.network)
    _write_json(folder / "text_encoder" / "config.json", config)
    _write_weights(folder / "text_encoder" / f"{TEXT_STEM}.safetensors", tensors)
    _write_json(
        folder / "tokenizer" / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text_encoder.text_len},
    )
    text_encoder.tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
