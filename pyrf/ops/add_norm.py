"""Sums, norms and activations of rows in one pass over memory: `add_norm`, and its halves.

    sum = residual + gate y + bias,   normed = act(norm(sum) weight + shift)

`norm` is a LayerNorm's or an RMS norm's, `act` is SiLU or nothing. All is computed in float32 at least, and
what is normalised is the sum as it is rounded to its dtype, so that one pass gives what two would.
`add_norm_e4m3` and `bias_norm_e4m3` round what is normed once more, as `quantise_rows` does, for a product of
e4m3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.ops import native
from pyrf.ops.e4m3 import QuantisedRows, plain_quantise_rows
from pyrf.ops.library import FLOATS, compute_dtype, define, expect, expect_contiguous
from pyrf.ops.quantise_rows import empty_rows


class Args(NamedTuple):
    """y and residual are [..., D], the others [D]; what is None is left out."""

    y: Tensor
    residual: Tensor | None
    gate: Tensor | None
    bias: Tensor | None
    weight: Tensor | None
    shift: Tensor | None
    eps: float
    rms: bool
    silu: bool


def _check(args: Args) -> None:
    y = args.y
    if y.ndim < 1 or y.dtype not in FLOATS:
        raise ValueError(f"y must be [..., D] of a float dtype, got {list(y.shape)} {y.dtype}")
    if args.residual is None and args.weight is None:
        raise ValueError("residual or weight must be given: there is nothing to do without")
    if args.shift is not None and args.weight is None:
        raise ValueError("shift must come with a weight")
    expect_contiguous("y", y)
    for name in ("residual", "gate", "bias", "weight", "shift"):
        x = getattr(args, name)
        if x is not None:
            expect(name, x, y.shape if name == "residual" else y.shape[-1:], y.dtype, y.device)
            expect_contiguous(name, x)


def _add(args: Args) -> Tensor:
    """residual + gate y + bias, rounded once; y itself where there is nothing to add."""
    y, residual, gate, bias = args[:4]
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


def _norm(x: Tensor, weight: Tensor, args: Args) -> Tensor:
    if args.rms:
        normed = F.rms_norm(x, weight.shape, weight, args.eps)
        if args.shift is not None:
            normed = normed + args.shift
    else:
        normed = F.layer_norm(x, weight.shape, weight, args.shift, args.eps)
    return F.silu(normed, inplace=True) if args.silu else normed


def _run(args: Args) -> list[Tensor]:
    total = _add(args)
    found = [] if args.residual is None else [total]
    return found if args.weight is None else [*found, _norm(total, args.weight, args)]


def _empty_sum(args: Args) -> Tensor | None:
    return None if args.residual is None else torch.empty_like(args.y)


def _empty(args: Args) -> tuple[Tensor | None, Tensor | None]:
    """Room for the sum and for what is normed, where they are asked for."""
    return _empty_sum(args), None if args.weight is None else torch.empty_like(args.y)


def _given(outputs: tuple[Tensor | None, ...]) -> list[Tensor]:
    return [x for x in outputs if x is not None]


def _run_cpu(args: Args) -> list[Tensor]:
    if native.cpu is None or args.y.dtype != torch.float32 or args.silu:
        return _run(args)
    outputs = _empty(args)
    native.run_on_cpu("add_norm", *args, *outputs)
    return _given(outputs)


def _launch(args: Args, *outputs: Tensor | None) -> list[Tensor]:
    """Run the kernel, which fills the sum, what is normed, and the scales of that; None is left out."""
    native.launch("add_norm", args.y.device, *args, *outputs)
    return _given(outputs)


def _run_cuda(args: Args) -> list[Tensor]:
    return _launch(args, *_empty(args), None) if native.serve_rows(args.y) else _run(args)


_op = define(
    "add_norm",
    Args,
    check=_check,
    run=_run,
    cuda=_run_cuda,
    cpu=_run_cpu,
    fake=lambda args: _given(_empty(args)),
    returns="Tensor[]",
)


def _check_e4m3(args: Args) -> None:
    _check(args)
    if args.weight is None:
        raise ValueError("weight must be given: it is what is normed that becomes e4m3")


def _quantised(found: list[Tensor]) -> list[Tensor]:
    """What an op gives, with the last of it as rows and scales."""
    return [*found[:-1], *plain_quantise_rows(found[-1])]


def _empty_e4m3(args: Args) -> tuple[Tensor | None, ...]:
    return _empty_sum(args), *empty_rows(args.y)


def _run_e4m3_cuda(args: Args) -> list[Tensor]:
    return _launch(args, *_empty_e4m3(args)) if native.serve_rows(args.y) else _quantised(_run(args))


_op_e4m3 = define(
    "add_norm_e4m3",
    Args,
    check=_check_e4m3,
    run=lambda args: _quantised(_run(args)),
    cuda=_run_e4m3_cuda,
    cpu=lambda args: _quantised(_run_cpu(args)),
    fake=lambda args: _given(_empty_e4m3(args)),
    returns="Tensor[]",
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


def add_norm_e4m3(
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
) -> tuple[Tensor, QuantisedRows]:
    """A sum in y's dtype, and its norm in e4m3: `add_norm` and `quantise_rows` in one pass, to the bit."""
    total, rows, scales = _op_e4m3(y, residual, gate, bias, weight, shift, eps, rms, silu)
    return total, QuantisedRows(rows, scales)


def bias_norm_e4m3(
    y: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float,
    rms: bool = False,
    silu: bool = False,
) -> QuantisedRows:
    """`bias_norm` and `quantise_rows` in one pass, to the bit; see `add_norm_e4m3`."""
    return QuantisedRows(*_op_e4m3(y, None, None, bias, weight, shift, eps, rms, silu))
