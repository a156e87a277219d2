"""Linears whose weights are e4m3 with a scale for each row: half of bfloat16's bytes, for large models."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from pyrf.models.dit.layers import Block
from pyrf.models.dit.model import WanModel
from pyrf.ops import quantise_rows
from pyrf.ops.e4m3 import QuantisedRows

CAPABILITY = (8, 9)
"""Of the oldest GPU that multiplies e4m3."""
UNIT = 16
"""Its products take whole multiples of so many features."""


class Fp8Linear(nn.Module):
    """`nn.Linear` with a weight in e4m3; what enters is in e4m3, too, with a scale for each token.

    Products are summed in float32. On a GPU of capability 8.9 or newer torch's `_scaled_mm` multiplies, which
    has not run for this; elsewhere the same numbers are multiplied in float32, which is exact and slow.

    Args:
        linear: whose weight is rounded; it is not kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantise_rows(linear.weight.detach())
        self._weight = nn.Buffer(weight)
        self._scale = nn.Buffer(scale)
        self._bias = linear.bias
        self._dtype = linear.weight.dtype
        out_features, in_features = weight.shape
        self._is_native = (
            weight.device.type == "cuda"
            and torch.cuda.get_device_capability(weight.device) >= CAPABILITY
            and out_features % UNIT == in_features % UNIT == 0
        )

    def load(self, name: str, value: Tensor) -> None:
        """Take another "weight" [out_features, in_features] or "bias" [out_features]."""
        if name == "weight":
            weight, scale = quantise_rows(value)
            self._weight.view(torch.uint8).copy_(weight.view(torch.uint8))
            self._scale.copy_(scale)
        else:
            self._bias.copy_(value)

    def forward(self, x: Tensor | QuantisedRows) -> Tensor:
        """[..., in_features] to [..., out_features] in the dtype of the linear that it was made of.

        Args:
            x: in that dtype, and rounded here; or rounded already, by `quantise_rows` or a pass before.
        """
        shape = x.shape
        rows, scale = x if isinstance(x, QuantisedRows) else quantise_rows(x.contiguous())
        rows, scale = rows.view(-1, shape[-1]), scale.view(-1, 1)
        if self._is_native and self._dtype == torch.bfloat16:
            out = torch._scaled_mm(
                rows, self._weight.T, scale, self._scale.T, bias=self._bias, out_dtype=self._dtype
            )
        else:
            out = (rows.float() @ self._weight.float().T) * scale * self._scale.T + self._bias
        return out.to(self._dtype).unflatten(0, shape[:-1])


class QuantisingGELU(nn.Module):
    """`TanhGELU` before an `Fp8Linear`: x [..., D] to rows in e4m3, in one pass."""

    def forward(self, x: Tensor) -> QuantisedRows:
        return quantise_rows(x, gelu=True)


def rounded_linears(block: Block) -> list[nn.Linear]:
    """The linears of a block that `quantise_linears` replaces; the last two are its feed-forward network."""
    first, _, last = block.ffn
    linears = [*(module.get_submodule(name) for module, name in _attention_linears(block)), first, last]
    return [linear for linear in linears if isinstance(linear, nn.Linear)]


def _attention_linears(block: Block) -> list[tuple[nn.Module, str]]:
    return [
        (module, name)
        for module, names in ((block.self_attn, "qkvo"), (block.cross_attn, "qo"))
        for name in names
    ]


def quantise_linears(model: WanModel) -> None:
    """Replace the linears of a model's blocks, which hold nearly all of its weights, by those in e4m3.

    The norms and the GELU before them then round to e4m3 what they give them.

    Layers outside the blocks keep their dtype: the embeddings of patches, text and time, the projection of
    time, and the head. So do the keys and values of cross-attention, which are made once for a prompt. The
    model can afterwards be neither trained nor saved.
    """
    for block in model.blocks:
        for module, name in _attention_linears(block):
            module.register_module(name, Fp8Linear(module.get_submodule(name)))  # type: ignore[arg-type]
        *_, first, last = rounded_linears(block)
        quantised = {"0": Fp8Linear(first), "1": QuantisingGELU(), "2": Fp8Linear(last)}
        block.ffn = nn.Sequential(OrderedDict[str, nn.Module](quantised))  # under the names of their weights
        block.quantises = True
