"""Sums, norms and activations of rows in one pass over memory: `add_norm`, and its halves.

    sum = residual + gate y + bias,   normed = act(norm(sum) weight + shift)

`norm` is a LayerNorm's or an RMS norm's, `act` is SiLU or nothing. All is computed in float32 at least, and
what is normalised is the sum as it is rounded to its dtype, so that one pass gives what two would.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.ops import native
from pyrf.ops.library import FLOATS, compute_dtype, define, expect, expect_contiguous


def _check(
    y: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    bias: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
) -> None:
    if y.ndim < 1 or y.dtype not in FLOATS:
        raise ValueError(f"y must be [..., D] of a float dtype, got {list(y.shape)} {y.dtype}")
    if residual is None and weight is None:
        raise ValueError("residual or weight must be given: there is nothing to do without")
    if shift is not None and weight is None:
        raise ValueError("shift must come with a weight")
    expect_contiguous("y", y)
    vectors = {"gate": gate, "bias": bias, "weight": weight, "shift": shift}
    shapes = {"residual": (residual, y.shape)} | {name: (x, y.shape[-1:]) for name, x in vectors.items()}
    for name, (x, shape) in shapes.items():
        if x is not None:
            expect(name, x, tuple(shape), y.dtype, y.device)
            expect_contiguous(name, x)


def _add(y: Tensor, residual: Tensor | None, gate: Tensor | None, bias: Tensor | None) -> Tensor:
    """residual + gate y + bias, rounded once; y itself where there is nothing to add."""
    if bias is None:
        if residual is None:
            return y if gate is None else y * gate
        return residual + y if gate is None else torch.addcmul(residual, gate, y)
    if residual is None:
        return y + bias if gate is None else torch.addcmul(bias, gate, y)
    total = y.to(compute_dtype(y.dtype), copy=True)
    if gate is not None:
        total.mul_(gate)
    return total.add_(bias).add_(residual).to(y.dtype)


def _norm(x: Tensor, weight: Tensor, shift: Tensor | None, eps: float, rms: bool, silu: bool) -> Tensor:
    if rms:
        normed = F.rms_norm(x, weight.shape, weight, eps)
        if shift is not None:
            normed = normed + shift
    else:
        normed = F.layer_norm(x, weight.shape, weight, shift, eps)
    return F.silu(normed, inplace=True) if silu else normed


def _run(
    y: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    bias: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
    eps: float,
    rms: bool,
    silu: bool,
) -> list[Tensor]:
    _check(y, residual, gate, bias, weight, shift)
    total = _add(y, residual, gate, bias)
    found = [] if residual is None else [total]
    return found if weight is None else [*found, _norm(total, weight, shift, eps, rms, silu)]


def _run_cpu(
    y: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    bias: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
    eps: float,
    rms: bool,
    silu: bool,
) -> list[Tensor]:
    if native.cpu is None or y.dtype != torch.float32 or silu:
        return _run(y, residual, gate, bias, weight, shift, eps, rms, silu)
    _check(y, residual, gate, bias, weight, shift)
    total = None if residual is None else torch.empty_like(y)
    normed = None if weight is None else torch.empty_like(y)
    inputs, outputs = (residual, gate, bias, weight, shift), (total, normed)
    native.cpu.add_norm(
        y.data_ptr(),
        *(0 if x is None else x.data_ptr() for x in inputs),
        eps,
        rms,
        *(0 if x is None else x.data_ptr() for x in outputs),
        y.numel() // max(y.shape[-1], 1),
        y.shape[-1],
        torch.get_num_threads(),
    )
    return [x for x in outputs if x is not None]


def _run_cuda(
    y: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    bias: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
    eps: float,
    rms: bool,
    silu: bool,
) -> list[Tensor]:
    _check(y, residual, gate, bias, weight, shift)
    if not native.serve_rows(y):
        return _run(y, residual, gate, bias, weight, shift, eps, rms, silu)
    total = None if residual is None else torch.empty_like(y)
    normed = None if weight is None else torch.empty_like(y)
    inputs, outputs = (residual, gate, bias, weight, shift), (total, normed)
    native.launch(
        "add_norm",
        y.device,
        native.DTYPES[y.dtype],
        y.data_ptr(),
        *(0 if x is None else x.data_ptr() for x in inputs),
        eps,
        rms,
        silu,
        *(0 if x is None else x.data_ptr() for x in outputs),
        y.numel() // y.shape[-1],
        y.shape[-1],
    )
    return [x for x in outputs if x is not None]


def _fake(
    y: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    bias: Tensor | None,
    weight: Tensor | None,
    shift: Tensor | None,
    eps: float,
    rms: bool,
    silu: bool,
) -> list[Tensor]:
    _check(y, residual, gate, bias, weight, shift)
    return [torch.empty_like(y) for x in (residual, weight) if x is not None]


_op = define(
    "add_norm(Tensor y, Tensor? residual, Tensor? gate, Tensor? bias, Tensor? weight, Tensor? shift, "
    "float eps, bool rms, bool silu) -> Tensor[]",
    _run,
    _run_cuda,
    _fake,
    _run_cpu,
)


def add_norm(
    y: Tensor,
    residual: Tensor,
    weight: Tensor,
    *,
    gate: Tensor | None = None,
    bias: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float,
    rms: bool = False,
    silu: bool = False,
) -> tuple[Tensor, Tensor]:
    """A sum and its norm. No gradient.

    Args:
        y, residual: [..., D], contiguous.
        weight: [D], like every vector here in y's dtype.
        gate, bias, shift: [D], or None: 1, 0, 0.
        eps: of the norm.
        rms: divide by the root mean square, else subtract the mean and divide by the standard deviation.
        silu: x sigmoid(x) of what the norm gives.

    Returns:
        residual + gate y + bias, and act(norm(of that) weight + shift); both [..., D], in y's dtype.

    Raises:
        ValueError: when a shape, dtype or device does not fit.
    """
    total, normed = _op(y, residual, gate, bias, weight, shift, eps, rms, silu)
    return total, normed


def bias_norm(
    y: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float,
    rms: bool = False,
    silu: bool = False,
) -> Tensor:
    """act(norm(y + bias) weight + shift) alone, [..., D]; see `add_norm`."""
    return _op(y, None, None, bias, weight, shift, eps, rms, silu)[0]


def gated_sum(
    y: Tensor, residual: Tensor, *, gate: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """residual + gate y + bias alone, [..., D]; see `add_norm`."""
    return _op(y, residual, gate, bias, None, None, 0.0, False, False)[0]
