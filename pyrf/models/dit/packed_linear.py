"""Linears laid out ahead for oneDNN, for inference on an x86 CPU with AVX-512.

torch hands a float32 linear to MKL, which on AMD's CPUs with AVX-512 is a fifth slower than oneDNN on
weights that it has laid out for itself. With AVX2 alone MKL is as fast or faster, and GELU in oneDNN's
product costs a third of it (docs/benchmarks.md). torch's compiler uses the same two operators; eager code
has no public name for them.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from pyrf.models.dit.model import WanModel

MIN_WEIGHTS = 2**16
"""Of a linear: with fewer, a call of the operator costs more than it gains."""


class PackedLinear(nn.Module):
    """`nn.Linear`, and GELU in its tanh form after it where asked for. float32 on the CPU; no gradient.

    Args:
        linear: whose weight is laid out anew; it is not kept.
        gelu: whether the product applies GELU as it writes its result.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = linear.bias
        self._activation = ("gelu", "tanh") if gelu else ("none", "")

    def load(self, name: str, value: Tensor) -> None:
        """Take another "weight" [out_features, in_features] or "bias" [out_features]."""
        if name == "weight":
            self._weight.copy_(torch.ops.mkldnn._reorder_linear_weight(value))
        else:
            self._bias.copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        name, kind = self._activation
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], kind)


def packs_here() -> bool:
    """Whether this machine gains from packed weights: a CPU with AVX-512, and a torch that has oneDNN."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and torch.backends.mkldnn.is_available()


def pack_linears(model: WanModel) -> None:
    """Replace the linears of a model's blocks, which take nearly all of its time, where that gains; others
    than `nn.Linear` stay.

    Weights are held once. Afterwards the model computes, but can be neither trained, moved nor saved.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32 or not packs_here():
        return
    for block in model.blocks:
        for module in (block.self_attn, block.cross_attn):
            for name, linear in list(module.named_children()):
                if isinstance(linear, nn.Linear) and linear.weight.numel() >= MIN_WEIGHTS:
                    module.register_module(name, PackedLinear(linear))
        first, _, last = block.ffn
        if (
            isinstance(first, nn.Linear)
            and isinstance(last, nn.Linear)
            and first.weight.numel() >= MIN_WEIGHTS
        ):
            packed = {"0": PackedLinear(first, gelu=True), "2": PackedLinear(last)}
            block.ffn = nn.Sequential(OrderedDict[str, nn.Module](packed))  # under the names of their weights
