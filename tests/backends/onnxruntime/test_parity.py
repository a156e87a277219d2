"""What `pyrf export` lets pass as the same as torch."""

import math
from dataclasses import replace

import pytest

from pyrf.backends.onnxruntime.parity import BOUNDS, Parity
from pyrf.export.errors import ExportError
from pyrf.export.exporter import PRECISIONS

GOOD = Parity("float32", chunks=4, max_error=1e-5, relative_error=1e-6, psnr=math.inf, widened=False)


def test_every_precision_has_a_bound() -> None:
    assert set(BOUNDS) == set(PRECISIONS)


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
