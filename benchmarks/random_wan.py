"""Write a bundle of Wan's sizes with random weights: what times a GPU needs no download.

    python benchmarks/random_wan.py /tmp/wan-1.3B --model 1.3B --codec wan --device cuda
    pyrf bench --model /tmp/wan-1.3B --device cuda --dtype bfloat16

Network and codec have the sizes of the published ones, and take as long. The text encoder is one small layer
with rows of the right size: it runs once per prompt.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from pyrf.bundle import load_bundle, save_bundle
from pyrf.bundle.weights import unfilled
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.models.dit.model import WanModel
from pyrf.models.text.encoder import TextEncoder
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder
from pyrf.models.wan21 import HEIGHT, MODELS, WIDTH

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def fill(network: Network, dtype: torch.dtype, device: str) -> Network:
    """Give an `unfilled` network random weights that keep the scale of what passes."""
    network = network.to(dtype).to_empty(device=device).requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in network.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.normal_(std=fan_in**-0.5 if parameter.ndim > 1 else 0.02, generator=generator)
        if "norm" in name and name.endswith(("weight", "gamma")):
            parameter.add_(1)
    return network.eval()


def random_transformer(config: ModelConfig, dtype: torch.dtype, device: str) -> WanModel:
    """A network whose weights exist in `dtype` only, never in a wider one."""
    with unfilled():
        model = WanModel(config)
    return fill(model, dtype, device)


def random_codec(name: str, device: str, *, small: bool = False) -> Codec:
    """In float32, as it is published; or narrower."""
    if name == "taehv":
        with unfilled():
            tiny = TAEHV(TAEHVConfig(encoder_width=16, decoder_widths=(32, 16, 16, 16)) if small else None)
        return TAEHVCodec(fill(tiny, torch.float32, device))
    from pyrf.models.codecs.wan_vae import WanVAE, build_network  # diffusers takes seconds

    with unfilled():
        large = build_network({"base_dim": 16, "decoder_base_dim": 16} if small else {})
    return WanVAE(fill(large, torch.float32, device))


def random_text_encoder(config: ModelConfig, device: str) -> TextEncoder:
    tokenizer = load_bundle("tiny").text_encoder().tokenizer
    with unfilled():
        network = UMT5Encoder(
            UMT5Config(
                vocab_size=tokenizer.get_vocab_size(),
                dim=config.text_dim,
                attention_dim=64,
                ffn_dim=64,
                num_heads=1,
                num_layers=1,
            )
        )
    return TextEncoder(fill(network, torch.bfloat16, device), tokenizer, config.text_len)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", type=Path, help="a new directory")
    parser.add_argument("--model", choices=["1.3B", "14B"], default="1.3B")
    parser.add_argument("--codec", choices=["wan", "taehv"], default="wan")
    parser.add_argument("--device", default="cpu", help="where the weights are drawn")
    parser.add_argument("--layers", type=int, help="fewer for a quick look")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU streams, for rehearsals")
    arguments = parser.parse_args()
    config = MODELS[f"Wan2.1-T2V-{arguments.model}"]
    height, width = (32, 48) if arguments.small else (HEIGHT, WIDTH)
    if arguments.small:
        config = replace(config, dim=128, ffn_dim=256, num_heads=1, num_layers=2, text_len=16, text_dim=32)
    if arguments.layers is not None:
        config = replace(config, num_layers=arguments.layers)
    save_bundle(
        arguments.path,
        transformer=random_transformer(config, torch.bfloat16, arguments.device),
        codec=random_codec(arguments.codec, arguments.device, small=arguments.small),
        text_encoder=random_text_encoder(config, arguments.device),
        stream_config=StreamConfig(),
        height=height,
        width=width,
    )
    print(f"wrote {arguments.path}")


if __name__ == "__main__":
    main()
