"""The text encoder as a graph: token ids to the rows that the student's `prompt` graph reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrf.export.graphs.trace import TracedGraph, trace
from pyrf.models.text.umt5 import UMT5Encoder


class TextCall(nn.Module):
    """Ids [1, text_len] to prompt_embeds [1, text_len, dim], zero where ``keep`` says padding."""

    def __init__(self, network: UMT5Encoder) -> None:
        super().__init__()
        self.model = network

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.model(ids, keep) * keep.unsqueeze(-1)


def text_graphs(network: UMT5Encoder, text_len: int) -> dict[str, TracedGraph]:
    """Trace the text encoder.

    Returns:
        "text".
    """
    ids = torch.zeros(1, text_len, dtype=torch.int64, device="cpu")
    keep = torch.ones(1, text_len, dtype=torch.bool, device="cpu")
    return {"text": trace(TextCall(network), {"ids": ids, "keep": keep}, ["prompt_embeds"])}
