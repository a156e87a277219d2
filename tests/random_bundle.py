"""A bundle with random weights, small enough that a stream from it takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from pyrf.bundle import save_bundle
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.dit import WanModel
from pyrf.models.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.models.umt5 import UMT5Config, UMT5Encoder
from pyrf.text import TextEncoder

WORDS = (
    *("a", "red", "green", "blue", "yellow", "circle", "square", "star"),
    *("moves", "right", "left", "up", "down", "spins", "on", "white", "black"),
)
HEIGHT, WIDTH = 32, 48
TEXT_LEN = 16


def randomise(network: nn.Module, seed: int) -> None:
    """Weights that keep signals near unit size and shut no path, as Wan's zero head would."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2:
            parameter.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            fan_in = parameter[0].numel()
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


def save_random_bundle(path: Path, *, stream_config: StreamConfig | None = None, seed: int = 0) -> Path:
    """Write a random bundle to `path`, which must be new."""
    text = UMT5Encoder(
        UMT5Config(vocab_size=32, dim=24, attention_dim=24, ffn_dim=32, num_heads=2, num_layers=1)
    )
    transformer = WanModel(
        ModelConfig(
            dim=48, ffn_dim=96, num_heads=2, num_layers=2, text_len=TEXT_LEN, text_dim=24, freq_dim=32
        )
    )
    vae = TAEHV(TAEHVConfig(encoder_width=8, decoder_widths=(16, 16, 8, 8), blocks=1))
    for offset, network in enumerate((text, transformer, vae)):
        randomise(network, seed + offset)
    vae.decoder[-1].bias.data.fill_(0.5)  # mid-grey, so that few pixels clip
    vocabulary = {word: i for i, word in enumerate(["<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return save_bundle(
        path,
        transformer=transformer,
        codec=TAEHVCodec(vae, fps=16.0),
        text_encoder=TextEncoder(text, tokenizer, TEXT_LEN),
        stream_config=stream_config or StreamConfig(),
        height=HEIGHT,
        width=WIDTH,
    )
