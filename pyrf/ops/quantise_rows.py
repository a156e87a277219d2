"""Rows of channels to e4m3 with a scale for each, in one pass: what enters a product of e4m3."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyrf.ops import native
from pyrf.ops.e4m3 import E4M3, QuantisedRows, plain_quantise_rows
from pyrf.ops.gelu import gelu_tanh
from pyrf.ops.library import FLOATS, define, expect_contiguous


class Args(NamedTuple):
    """x is [..., D]."""

    x: Tensor
    gelu: bool


def _check(args: Args) -> None:
    x = args.x
    if x.ndim < 1 or x.dtype not in FLOATS:
        raise ValueError(f"x must be [..., D] of a float dtype, got {list(x.shape)} {x.dtype}")
    expect_contiguous("x", x)


def empty_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Room for rows of x's shape in e4m3, and for their scales."""
    return torch.empty_like(x, dtype=E4M3), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _run(args: Args) -> tuple[Tensor, Tensor]:
    return plain_quantise_rows(gelu_tanh(args.x) if args.gelu else args.x)


def _run_cuda(args: Args) -> tuple[Tensor, Tensor]:
    if not native.serve_rows(args.x, native.MAX_QUANTISED):
        return _run(args)
    outputs = empty_rows(args.x)
    native.launch("quantise_rows", args.x.device, *args, *outputs)
    return outputs


_op = define(
    "quantise_rows",
    Args,
    check=_check,
    run=_run,
    cuda=_run_cuda,
    fake=lambda args: empty_rows(args.x),
    returns="(Tensor, Tensor)",
)


def quantise_rows(x: Tensor, *, gelu: bool = False) -> QuantisedRows:
    """Rows as e4m3 and a scale for each, whose product is near them. No gradient.

    A row's largest number becomes ±448. A row of zeros stays one; one with NaN or an infinity becomes NaN.

    Args:
        x: [..., D], contiguous, of any float dtype.
        gelu: of GELU in its tanh form in place of x, as it is rounded to x's dtype.

    Raises:
        ValueError: when x has another dtype, or is not contiguous.
    """
    return QuantisedRows(*_op(x, gelu))
