"""The text encoder on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrf.bundle.names import t5_from_transformers, t5_to_transformers
from pyrf.bundle.states import renamed
from pyrf.bundle.weights import CheckpointError, Placement, load_weights, unfilled
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder


def config_of_weights(tensors: dict[str, Tensor]) -> UMT5Config:
    """Sizes of the text encoder from its weights under either names; of UMT5-XXL where they do not tell."""
    tensors = {t5_from_transformers(name): tensor for name, tensor in tensors.items()}
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


def load_text(
    config: UMT5Config, tensors: dict[str, Tensor], path: Path, placement: Placement
) -> UMT5Encoder:
    """The text encoder with its weights, given under the names of either layout.

    Raises:
        CheckpointError: when they are not the network's.
    """
    with unfilled():
        network = UMT5Encoder(config)
    tensors = renamed(_encoder_only(tensors, path), t5_from_transformers, path)
    load_weights(network, tensors, path, dtype=placement.dtype, device=placement.device)
    return network


def _encoder_only(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without a decoder that stands beside the encoder, and with the table of tokens under one name."""
    tensors = {name: t for name, t in tensors.items() if not name.startswith(("decoder.", "lm_head."))}
    # Some writers store the table under a second name, or under that one alone.
    table = tensors.pop("encoder.embed_tokens.weight", None)
    if table is not None and not torch.equal(tensors.setdefault("shared.weight", table), table):
        raise CheckpointError(
            f"{path}: shared.weight and encoder.embed_tokens.weight differ; UMT5 has one table"
        )
    return tensors


def text_content(network: UMT5Encoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights, as the transformers library reads them."""
    config = network.config
    values = {
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
    }
    return values, {t5_to_transformers(name): tensor for name, tensor in network.state_dict().items()}
