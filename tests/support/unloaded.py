"""Bundles of published sizes without files: all that a bill of memory reads."""

from pathlib import Path

import torch

from pyrf.bundle.bundle import Bundle
from pyrf.bundle.weights import Placement, unfilled
from pyrf.config import StreamConfig
from pyrf.models.codecs.codec import Codec
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec
from pyrf.models.codecs.wan_vae import WanVAE, build_network
from pyrf.models.text.umt5 import UMT5Config
from pyrf.models.wan21 import FPS, HEIGHT, MODELS, WIDTH

SMALL_TEXT = UMT5Config(vocab_size=64, attention_dim=64, ffn_dim=64, num_heads=1, num_layers=1)
"""As benchmarks/random_wan.py has it."""


class UnloadedLayout:
    """What `Bundle.layout` offers, for a codec by name."""

    def __init__(self, codec: str, text: UMT5Config) -> None:
        self._codec, self._text = codec, text

    def codec(self, placement: Placement, *, fps: float) -> Codec:
        with unfilled():
            network = TAEHV() if self._codec == "taehv" else build_network({})
        if isinstance(network, TAEHV):
            network.decoder.to(placement.dtype)
            return TAEHVCodec(network, fps=fps)
        return WanVAE(network, decoder_dtype=placement.dtype, fps=fps, for_gpu=placement.is_for_gpu)

    def text_config(self) -> UMT5Config:
        return self._text

    def files(self, *, dit_weights: bool) -> list[Path]:
        return []

    def dit_path(self) -> Path:
        return Path(__file__)


def wan_bundle(
    codec: str = "wan", model: str = "1.3B", text: UMT5Config = SMALL_TEXT, window_frames: int = 9
) -> Bundle:
    """Wan2.1-T2V with the codec "wan" or "taehv"."""
    return Bundle(
        path=Path(f"wan-{model}"),
        model_config=MODELS[f"Wan2.1-T2V-{model}"],
        stream_config=StreamConfig(window_frames=window_frames),
        fps=FPS,
        height=HEIGHT,
        width=WIDTH,
        layout=UnloadedLayout(codec, text),  # type: ignore[arg-type]
    )


GPU = torch.device("cuda", 0)
"""Whose name is all that a bill needs."""
