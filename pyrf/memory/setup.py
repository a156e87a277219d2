"""How a model is held in memory: what may be chosen without loading it. Free of torch's work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pyrf.backends.torch.backend import cache_dtype_of
from pyrf.config import StreamConfig

TextPlace = Literal["device", "cpu", "freed"]
"""Where the text encoder is: with the network; on the CPU, where it also computes; or nowhere but while a
prompt is encoded, for which its weights are read again."""


@dataclass(frozen=True)
class Setup:
    """A way to hold a model.

    Attributes:
        dtype: of network and cache.
        device: of network, cache and codec.
        stream: its window decides on the cache.
        text: where the text encoder is.
        by_frame: whether a GPU decodes one latent frame at a time; a CPU always does.
        tiny_codec: whether the bundle's tiny codec takes the place of its own.
        precision: what is kept in 8 bits, see `pyrf.backends.choice.PRECISIONS`.
        adapter_base: where the base's values of weights that adapters change are kept.
        backend: who computes, one of `pyrf.backends.choice.BACKENDS`.
        exported: a folder of graphs, for a backend that runs them; None: made when needed.
        arenas: whether sessions of ONNX Runtime keep the memory of a run for the next.
    """

    dtype: torch.dtype
    device: torch.device
    stream: StreamConfig
    text: TextPlace = "device"
    by_frame: bool = False
    tiny_codec: bool = False
    precision: str | None = None
    adapter_base: str = "device"
    backend: str = "torch"
    exported: str | Path | None = None
    arenas: bool = True

    @property
    def ring_dtype(self) -> torch.dtype:
        """Of keys and values."""
        return cache_dtype_of(self.precision) or self.dtype

    @property
    def text_dtype(self) -> torch.dtype:
        """Of the text encoder: its activations may leave the range of float16; its rows do not."""
        return torch.bfloat16 if self.dtype == torch.float16 else self.dtype

    @property
    def text_device(self) -> torch.device:
        """Where prompts are encoded."""
        return torch.device("cpu") if self.text == "cpu" else self.device

    def changes(self, asked: Setup) -> list[str]:
        """In what it differs from another, in words, with the option that asks for it."""
        told = []
        if self.backend == "onnxruntime" and asked.arenas and not self.arenas:
            told.append("sessions that keep no memory for the next run")
        if self.by_frame and not asked.by_frame:
            told.append("decoding one latent frame at a time")
        if self.text == "cpu" and asked.text != "cpu":
            told.append("the text encoder on the CPU")
        if self.text == "freed" and asked.text != "freed":
            told.append("the text encoder read anew for each prompt")
        if self.tiny_codec and not asked.tiny_codec:
            told.append("TAEHV as its codec")
        if self.stream.window_frames != asked.stream.window_frames:
            told.append(f"a window of {self.stream.window_frames} latent frames")
        return told
