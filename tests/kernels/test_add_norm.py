"""The kernel of sums and norms on the emulator: against float64, the op on CPU and the same in two steps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from pyrf.ops import add_norm
from tests.kernels.checks import Rows, check_add_norm, rel_l2
from tests.kernels.emulator import ELEMENTS, EVERY_SCHEDULE, Emulator, RefusedError
from tests.kernels.numbers import POISON, aligned, place
from tests.kernels.torch_bits import DTYPES as TORCH_DTYPES
from tests.kernels.torch_bits import bits, draw, shift

EVERYTHING = ("residual", "gate", "bias", "weight", "shift")
SHAPES = [
    (1, 8),  # one of all
    (33, 96),  # two rows a warp, four a lane; the last block in part
    (32, 128),
    (7, 136),  # one vector more than half a warp
    (17, 192),
    (16, 256),
    (9, 384),
    (8, 512),
    (5, 520),
    (6, 1536),
    (5, 1544),
    (3, 5112),
    (5, 5120),
]
"""Rows and channels, with and without tails, of every instance."""


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize(("rows", "dim"), SHAPES)
def test_float64(emulated: Emulator, rows: int, dim: int, dtype: str) -> None:
    for rms, silu in product((False, True), repeat=2):
        check_add_norm(emulated, Rows(rows, dim, EVERYTHING, rms, silu, dtype))


@pytest.mark.parametrize(
    "given",
    [
        given
        for bits in product((False, True), repeat=5)
        for given in [tuple(name for name, has in zip(EVERYTHING, bits) if has)]
        if ("weight" in given or "residual" in given) and ("weight" in given or "shift" not in given)
    ],
    ids=" ".join,
)
def test_what_may_be_left_out(emulated: Emulator, given: tuple[str, ...]) -> None:
    for rows, dim in ((33, 96), (5, 384)):
        check_add_norm(emulated, Rows(rows, dim, given))
        check_add_norm(emulated, Rows(rows, dim, given, rms=True, silu=True, dtype="fp16"))


@pytest.mark.parametrize(("schedule", "copy_mode"), EVERY_SCHEDULE)
def test_schedules(emulated: Emulator, schedule: int, copy_mode: int) -> None:
    emulated.configure(schedule, copy_mode, seed=5)
    check_add_norm(emulated, Rows(37, 96))
    check_add_norm(emulated, Rows(6, 1536))


def tensors(dtype: str = "bf16", rows: int = 6, dim: int = 384) -> dict[str, Tensor]:
    kind = TORCH_DTYPES[dtype]
    found = {name: draw(rows, dim, dtype=kind, seed=seed) for seed, name in enumerate(("y", "residual"))}
    vectors = ("gate", "bias", "weight", "shift")
    return found | {name: draw(dim, dtype=kind, seed=seed + 2) for seed, name in enumerate(vectors)}


def run(
    emulated: Emulator,
    given: dict[str, Tensor],
    dtype: str = "bf16",
    *,
    eps: float = 1e-6,
    rms: bool = False,
    silu: bool = False,
) -> tuple[Tensor, Tensor]:
    """The sum and its norm."""
    outputs = [torch.full_like(given["y"], float("nan")) for _ in range(2)]
    arrays: dict[str, np.ndarray | None] = {name: bits(x) for name, x in given.items()}
    for name in ("residual", *EVERYTHING, "scales"):
        arrays.setdefault(name, None)
    arrays["sum"], arrays["normed"] = (bits(x) for x in outputs)
    if "residual" not in given:
        arrays["sum"] = None
    emulated.run("add_norm", dtype, **arrays, eps=eps, rms=rms, silu=silu)
    return outputs[0], outputs[1]


@pytest.mark.parametrize(("rms", "silu"), list(product((False, True), repeat=2)))
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_the_op_on_cpu(emulated: Emulator, dtype: str, rms: bool, silu: bool) -> None:
    given = tensors(dtype)
    got = run(emulated, given, dtype, rms=rms, silu=silu)
    expected = add_norm(**given, eps=1e-6, rms=rms, silu=silu)
    ulp = {"bf16": 2.0**-7, "fp16": 2.0**-10}[dtype]
    torch.testing.assert_close(got[0], expected[0], atol=1e-6, rtol=ulp)
    torch.testing.assert_close(got[1], expected[1], atol=4 * ulp, rtol=2 * ulp)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_one_pass_is_two(emulated: Emulator, dtype: str) -> None:
    given = tensors(dtype)
    total, normed = run(emulated, given, dtype, silu=True)
    alone = {"y": total, "weight": given["weight"], "shift": given["shift"]}
    assert torch.equal(run(emulated, alone, dtype, silu=True)[1], normed)


@pytest.mark.parametrize(("rows", "dim"), SHAPES)
def test_every_byte_moves_once(emulated: Emulator, rows: int, dim: int) -> None:
    """Parameters apart, which every warp reads again, for the rows that its lanes work on."""
    run(emulated, tensors(rows=rows, dim=dim))
    counters = emulated.counters()
    lanes = 16 if dim <= 128 else 32
    together = 4 if dim <= 256 else 2 if dim <= 512 else 1  # rows of a lane
    groups = 128 // lanes
    blocks = -(-rows // (groups * together))
    assert counters.bytes_loaded == 2 * rows * dim * 2 + blocks * groups * 4 * dim * 2
    assert counters.bytes_stored == 2 * rows * dim * 2
    assert counters.barriers == 0


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor | None]]] = {
    **{f"{name} must be aligned to 16 bytes": (name, shift) for name in ("y", *EVERYTHING)},
    "dim must be a multiple of 8, got 12": ("y", lambda y: y.new_zeros(2, 12)),
    r"dim must lie in 8\.\.5120, got 5128": ("y", lambda y: y.new_zeros(1, 5128)),
    r"rows must lie in 1\.\.2147483647, got 0": ("y", lambda y: y[:0]),
    "shift must come with a weight": ("weight", lambda weight: None),
    "residual must be bfloat16, got float32": ("residual", lambda x: x.float()),
    r"residual must be \[6, 384\], got \[5, 384\]": ("residual", lambda x: x[:-1]),
    "gate must be contiguous, got stride 2 in dimension 0": ("gate", lambda x: torch.stack((x, x), -1)[:, 0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_tensors(emulated: Emulator, message: str) -> None:
    name, change = REFUSED[message]
    given = tensors()
    changed = change(given.pop(name))
    if changed is not None:
        given[name] = changed
    with pytest.raises(RefusedError, match=f"^add_norm: {message}"):
        run(emulated, given)


def test_refuses_numbers(emulated: Emulator) -> None:
    with pytest.raises(RefusedError, match="dtype must be"):
        run(emulated, tensors(), dtype="float32")
    with pytest.raises(RefusedError, match="eps must not be negative, got -1"):
        run(emulated, tensors(), eps=-1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "residual or weight must be given"),
        (("weight", "sum", "normed"), "sum must be given where residual is, and only there"),
        (("residual", "weight", "normed"), "sum must be given where residual is, and only there"),
        (("residual", "sum", "normed"), "normed must be given where weight is, and only there"),
        (("residual", "weight", "sum"), "normed must be given where weight is, and only there"),
    ],
)
def test_refuses_outputs_without_inputs(emulated: Emulator, given: tuple[str, ...], message: str) -> None:
    arrays: dict[str, np.ndarray | None] = dict.fromkeys((*EVERYTHING, "sum", "normed", "scales"))
    for name in given:
        arrays[name] = aligned((16,) if name == "weight" else (2, 16), np.uint16)
    y = aligned((2, 16), np.uint16)
    with pytest.raises(RefusedError, match=f"^add_norm: {message}"):
        emulated.run("add_norm", "bf16", y=y, **arrays, eps=0.0, rms=False, silu=False)


def test_rows_far_from_zero(emulated: Emulator) -> None:
    """Their spread is 1 / 256 of their mean: the mean square less the squared mean would lose it."""
    y = (256 + draw(5, 1536, dtype=torch.float64)).half()
    got = run(emulated, {"y": y, "weight": torch.ones(1536, dtype=y.dtype)}, "fp16")[1]
    expected = torch.nn.functional.layer_norm(y.double(), (1536,), eps=1e-6)
    assert rel_l2(got.double().numpy(), expected.numpy()) < 2.0**-11


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_what_is_not_finite_stays_in_its_row(emulated: Emulator, dtype: str) -> None:
    y = draw(5, 96, dtype=TORCH_DTYPES[dtype])
    clean = run(emulated, {"y": y, "weight": torch.ones(96, dtype=y.dtype)}, dtype)[1]
    spoilt = y.clone()
    spoilt[2, 7] = float("inf")
    got = run(emulated, {"y": spoilt, "weight": torch.ones(96, dtype=y.dtype)}, dtype)[1]
    others = [0, 1, 3, 4]
    assert got[2].isnan().all()
    assert torch.equal(got[others], clean[others])


def test_large_negative_values_have_no_activation(emulated: Emulator) -> None:
    """exp(-x) overflows there; what is left is zero, not NaN."""
    y = place(bits(draw(2, 96, dtype=torch.bfloat16)))
    weight, shift_down = (bits(torch.full((96,), x, dtype=torch.bfloat16)) for x in (1.0, -200.0))
    normed = aligned(y.shape, np.uint16, POISON)
    arguments = {"y": y, "residual": None, "gate": None, "bias": None, "weight": place(weight)}
    arguments |= {"shift": place(shift_down), "sum": None, "normed": normed, "scales": None}
    emulated.run("add_norm", "bf16", **arguments, eps=1e-6, rms=True, silu=True)
    assert not (normed & 0x7FFF).any()
