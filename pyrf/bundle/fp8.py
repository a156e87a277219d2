"""Float8 weights with scales, as ComfyUI and others write them: a weight is its number times its scale."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from pyrf.bundle.weights import CheckpointError

_SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")
_IGNORED = ("scale_input", "input_scale", "comfy_quant")
"""What scales activations, or says again what the numbers are."""
_MARKERS = ("scaled_fp8", "spiece_model")
"""Tensors that are no weights: a mark of the format, and a tokenizer."""
_LOUD = 0x78
"""Without its sign, a float8 number from here on is within a factor two of the largest there is."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def split_scales(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights, and the scale of each that has one under the weight's name.

    Raises:
        CheckpointError: when numbers are quantised otherwise, or a weight is there without its scale.
    """
    weights, scales = {}, {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "weight_scale_2" or (leaf == "comfy_quant" and "float8" not in _said(tensor)):
            raise CheckpointError(
                f"{path}: {stem} is quantised in a way that is not read; "
                "give weights in 16 bits or scaled float8"
            )
        if leaf in _SCALES:
            scales[f"{stem}.weight"] = tensor
        elif leaf not in (*_IGNORED, *_MARKERS):
            weights[name] = tensor
    if lost := [name for name in scales if name not in weights]:
        raise CheckpointError(f"{path}: a scale is there without its weight, {lost[0]}")
    marked = scales or any(name.rpartition(".")[2] == "scaled_fp8" for name in tensors)
    plain = [n for n, t in weights.items() if t.dtype in FLOAT8 and t.ndim > 1 and n not in scales]
    if marked and plain:
        raise CheckpointError(f"{path}: {plain[0]} is scaled float8 without its scale; fetch the file again")
    return weights, scales


def unpack(weights: dict[str, Tensor], scales: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights in float32 where they are scaled, else as they are.

    Raises:
        CheckpointError: when a scale has the wrong shape, or all scales were lost.
    """
    for name, scale in scales.items():
        weights[name] = weights[name].float() * _fitting(scale, weights[name], f"{path}: {name}")
    if not scales and _lost_scales(weights):
        raise CheckpointError(
            f"{path}: float8 weights that were scaled, without their scales; "
            "give the file with scale_weight or weight_scale, or weights in 16 bits"
        )
    return weights


def _fitting(scale: Tensor, weight: Tensor, what: str) -> Tensor:
    """The scale of the whole weight, or of each of its rows."""
    rows = weight.shape[0] if weight.ndim else 1
    if scale.numel() == 1:
        return scale.float().reshape(())
    if scale.numel() == rows and scale.shape[0] == rows:
        return scale.float().reshape(rows, *[1] * (weight.ndim - 1))
    raise CheckpointError(
        f"{what} {list(weight.shape)} has a scale of shape {list(scale.shape)}; one a weight or a row is read"
    )


def _lost_scales(weights: dict[str, Tensor]) -> bool:
    """Whether every float8 matrix uses the whole range of its numbers, as no network's own weights do."""
    matrices = [tensor for tensor in weights.values() if tensor.dtype in FLOAT8 and tensor.ndim == 2]
    return bool(matrices) and all(
        int((tensor.view(torch.uint8) & 0x7F).max()) >= _LOUD for tensor in matrices if tensor.numel()
    )


def _said(tensor: Tensor) -> str:
    """The format in a `comfy_quant`, bytes of JSON."""
    try:
        return str(json.loads(bytes(tensor.to(torch.uint8).tolist())).get("format"))
    except (ValueError, AttributeError):
        return "unknown"
