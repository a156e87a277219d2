"""Small models with seeded random weights, for tests of files and of the pipeline."""

from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from pyrf.bundle import save_bundle
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.models.dit.model import WanModel
from pyrf.models.text.encoder import TextEncoder
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder

Network = TypeVar("Network", bound=nn.Module)
WORDS = ("a", "red", "blue", "circle", "square", "moves", "right", "left", "spins")
MODEL = ModelConfig(
    dim=24, ffn_dim=48, num_heads=2, num_layers=2, text_len=8, text_dim=16, freq_dim=32, rope_theta=100.0
)
STREAM = StreamConfig(chunk_frames=2, window_frames=6, sink_frames=2, sink_alpha=0.9, shift=3.0)
TEXT = UMT5Config(
    vocab_size=16,
    dim=16,
    attention_dim=24,
    ffn_dim=32,
    num_heads=2,
    num_layers=2,
    num_buckets=8,
    max_distance=16,
)


def randomise(network: Network, seed: int = 0) -> Network:
    """Fill every parameter, also those that start at zero, so that each one matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(network.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        scale = fan_in**-0.5 if parameter.ndim > 1 else 0.1
        with torch.no_grad():
            parameter.copy_(noise * scale + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return network.eval()


def dit(config: ModelConfig = MODEL, seed: int = 0) -> WanModel:
    return randomise(WanModel(config), seed)


def tokenizer() -> Tokenizer:
    """One token a word and </s> at the end."""
    vocabulary = {token: i for i, token in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    result = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    result.normalizer = normalizers.Lowercase()
    result.pre_tokenizer = pre_tokenizers.Whitespace()
    result.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return result


def text_encoder(seed: int = 0) -> TextEncoder:
    return TextEncoder(randomise(UMT5Encoder(TEXT), seed), tokenizer(), MODEL.text_len)


def codec(seed: int = 0) -> TAEHVCodec:
    config = TAEHVConfig(encoder_width=8, decoder_widths=(12, 8, 8, 8), blocks=1)
    return TAEHVCodec(randomise(TAEHV(config), seed), fps=12.0)


def bundle(path: Path) -> Path:
    """Write a whole bundle to `path`."""
    return save_bundle(
        path,
        transformer=dit(),
        codec=codec(),
        text_encoder=text_encoder(),
        stream_config=STREAM,
        height=32,
        width=48,
    )
