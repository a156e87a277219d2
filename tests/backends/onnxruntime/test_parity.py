"""How far exports are from torch, and what `pyrf export` lets pass."""

import math
from dataclasses import replace

import pytest

from pyrf.backends.onnxruntime.parity import BOUNDS, Parity, measure_parity
from pyrf.export.errors import ExportError
from pyrf.export.exporter import PRECISIONS
from tests.support import exports

GOOD = Parity("float32", chunks=4, max_error=1e-5, relative_error=1e-6, psnr=math.inf, widened=False)


def test_every_precision_has_a_bound() -> None:
    narrow = {f"{dtype} with fp8-attention" for dtype in PRECISIONS if dtype != "fp8"}
    assert set(BOUNDS) == {*PRECISIONS, *narrow}


@pytest.mark.parametrize("precision", BOUNDS)
def test_what_lies_outside_the_bound_is_refused(precision: str) -> None:
    bound = BOUNDS[precision]
    replace(GOOD, precision=precision, relative_error=bound.relative_error, psnr=bound.psnr).check()
    for wrong in (
        {"relative_error": 1.01 * bound.relative_error},
        {"relative_error": math.nan},
        {"psnr": bound.psnr - 0.1},
        {"psnr": math.nan},
    ):
        with pytest.raises(ExportError, match=f"the {precision} graphs do not compute what torch computes"):
            replace(GOOD, precision=precision, **wrong).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "most"), [("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 2e-2), ("fp8", 0.3)]
)
def test_an_export_is_near_torch_by_what_rounding_explains_and_no_nearer(dtype: str, most: float) -> None:
    parity = measure_parity(exports.bundle(), exports.exported(dtype), exports.STREAM.slots + 1)
    parity.check()
    assert parity.relative_error < most
    assert parity.widened == (dtype in ("bfloat16", "fp8"))
    assert parity.precision == dtype
    assert parity.psnr > (60 if dtype == "float32" else 20)
    assert dtype == "float32" or parity.relative_error > 1e-5


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-3), ("bfloat16", 2e-2)])
def test_a_cache_in_e4m3_is_compared_with_torchs_in_e4m3(dtype: str, most: float) -> None:
    folder = exports.exported(dtype, "fp8-attention")
    parity = measure_parity(exports.bundle(), folder, exports.STREAM.slots + 1)
    parity.check()
    assert parity.relative_error < most
    assert parity.precision == f"{dtype} with fp8-attention"
    assert "with torch in float32 with fp8-attention" in str(parity)
