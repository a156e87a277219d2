"""The kernels that give rows in e4m3, on the emulator: every bit against torch's plain path, and refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pyrf.ops.e4m3 import E4M3, QuantisedRows, plain_quantise_rows
from tests.kernels.checks import Rows, check_add_norm_e4m3, check_quantise_rows
from tests.kernels.emulator import ELEMENTS, EVERY_SCHEDULE, Emulator, RefusedError
from tests.kernels.numbers import aligned
from tests.kernels.torch_bits import DTYPES as TORCH_DTYPES
from tests.kernels.torch_bits import bits, draw, shift

SHAPES = [(1, 8), (6, 1536), (5, 2048), (4, 2056), (5, 5120), (4, 6144), (4, 8960), (4, 13824), (3, 14336)]
"""Rows and channels, with and without tails, of every instance."""
NORM_SHAPES = [(1, 8), (33, 96), (32, 128), (7, 136), (16, 256), (9, 384), (8, 512), (5, 1536), (5, 5120)]
"""The same of add_norm."""


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize(("rows", "dim"), SHAPES)
def test_every_bit(emulated: Emulator, rows: int, dim: int, dtype: str) -> None:
    check_quantise_rows(emulated, rows, dim, dtype)


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize(("rows", "dim"), NORM_SHAPES)
def test_a_norm_in_one_pass_has_the_bits_of_two(emulated: Emulator, rows: int, dim: int, dtype: str) -> None:
    check_add_norm_e4m3(emulated, Rows(rows, dim, dtype=dtype))
    check_add_norm_e4m3(emulated, Rows(rows, dim, ("bias", "weight"), True, True, dtype))


@pytest.mark.parametrize(("schedule", "copy_mode"), EVERY_SCHEDULE)
def test_schedules(emulated: Emulator, schedule: int, copy_mode: int) -> None:
    emulated.configure(schedule, copy_mode, seed=5)
    check_quantise_rows(emulated, 6, 1536)
    check_add_norm_e4m3(emulated, Rows(37, 96))


def run(emulated: Emulator, x: Tensor, *, gelu: bool = False) -> QuantisedRows:
    dtype = {kind: name for name, kind in TORCH_DTYPES.items()}.get(x.dtype, "float32")
    rows = torch.zeros(x.shape, dtype=torch.uint8).view(E4M3)
    scales = torch.full((*x.shape[:-1], 1), float("nan"))
    emulated.run("quantise_rows", dtype, x=bits(x), gelu=gelu, rows=bits(rows), scales=bits(scales))
    return QuantisedRows(rows, scales)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_number_of_16_bits_is_rounded_as_torch_does(emulated: Emulator, dtype: str) -> None:
    """Beside each of several largest numbers of its row; what is larger is the largest itself."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(TORCH_DTYPES[dtype])
    x = every[every.isfinite()].view(-1, 8)
    x = torch.cat([torch.cat((x, torch.full_like(x, most)), -1) for most in (448.0, 0.3, 1e-3, 6e4)])
    got, expected = run(emulated, x), plain_quantise_rows(x)
    assert torch.equal(got.scales, expected.scales)
    assert torch.equal(got.rows.view(torch.uint8), expected.rows.view(torch.uint8))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_rows_of_zeros_are_zeros_and_not_nan(emulated: Emulator, dtype: str) -> None:
    """So is the norm of a row whose numbers are all the same, whose weight does not matter then."""
    x = draw(4, 96, dtype=TORCH_DTYPES[dtype])
    x[1], x[3] = 0, -0.0
    for gelu in (False, True):
        rows, scales = run(emulated, x, gelu=gelu)
        assert scales.isfinite().all()
        assert (scales > 0).all()
        assert not rows[[1, 3]].float().any()
        assert rows.float().isfinite().all()
    y, weight = torch.full((2, 96), 3.0, dtype=x.dtype), torch.ones(96, dtype=x.dtype)
    rows, scales = torch.ones(2, 96).to(E4M3), torch.full((2, 1), float("nan"))
    none = dict.fromkeys(("residual", "gate", "bias", "shift", "sum"))
    given = {"y": bits(y), "weight": bits(weight), "normed": bits(rows), "scales": bits(scales)}
    emulated.run("add_norm", dtype, **none, **given, eps=1e-6, rms=False, silu=False)
    assert not rows.float().any()
    assert scales.isfinite().all()


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_what_is_not_finite_stays_in_its_row_and_shows(emulated: Emulator, dtype: str) -> None:
    x = draw(4, 96, dtype=TORCH_DTYPES[dtype])
    x[1, 7], x[2, 95] = float("nan"), float("inf")
    rows, scales = run(emulated, x)
    products = rows.float() * scales
    assert products[1].isnan().all()
    assert products[2].isnan().all()
    assert products[[0, 3]].isfinite().all()


@pytest.mark.parametrize(("rows", "dim"), SHAPES)
def test_every_byte_moves_once(emulated: Emulator, rows: int, dim: int) -> None:
    run(emulated, draw(rows, dim, dtype=torch.bfloat16), gelu=True)
    counters = emulated.counters()
    assert counters.bytes_loaded == 2 * rows * dim
    assert counters.bytes_stored == rows * dim + 4 * rows


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "x must be aligned to 16 bytes": ("x", shift),
    "dim must be a multiple of 8, got 12": ("x", lambda x: x.new_zeros(2, 12)),
    r"dim must lie in 8\.\.14336, got 14344": ("x", lambda x: x.new_zeros(1, 14344)),
    r"rows must lie in 1\.\.2147483647, got 0": ("x", lambda x: x[:0]),
    "dtype must be": ("x", lambda x: x.float()),
    "rows must be e4m3, got bfloat16": ("rows", lambda x: torch.zeros(4, 96, dtype=torch.bfloat16)),
    r"rows must be \[4, 96\], got \[3, 96\]": ("rows", lambda x: x[:-1]),
    r"scales must be \[4, 1\], got \[4, 96\]": ("scales", lambda x: x.expand(4, 96).contiguous()),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(emulated: Emulator, message: str) -> None:
    given = {"x": draw(4, 96, dtype=torch.bfloat16), "rows": torch.zeros(4, 96).to(E4M3)}
    given["scales"] = torch.zeros(4, 1)
    name, change = REFUSED[message]
    given[name] = change(given[name])
    with pytest.raises(RefusedError, match=f"^quantise_rows: {message}"):
        emulated.run("quantise_rows", "bf16", **{key: bits(x) for key, x in given.items()}, gelu=False)


def test_add_norm_refuses_scales_without_a_norm(emulated: Emulator) -> None:
    arrays: dict[str, np.ndarray | None] = dict.fromkeys(("gate", "bias", "weight", "shift", "normed"))
    arrays |= {name: aligned((2, 16), np.uint16) for name in ("y", "residual", "sum")}
    arrays["scales"] = aligned((2, 1), np.float32)
    with pytest.raises(RefusedError, match=r"^add_norm: scales must come with a weight"):
        emulated.run("add_norm", "bf16", **arrays, eps=0.0, rms=False, silu=False)
    arrays |= {
        name: aligned((16,) if name == "weight" else (2, 16), np.uint16) for name in ("weight", "normed")
    }
    with pytest.raises(RefusedError, match=r"^add_norm: normed must be e4m3, got bfloat16"):
        emulated.run("add_norm", "bf16", **arrays, eps=0.0, rms=False, silu=False)
