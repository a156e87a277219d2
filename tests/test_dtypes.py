"""Names of dtypes."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path

import pytest
import torch

from pyrf.dtypes import dtype_of, name_of, slow_on_cpu
from pyrf.pipeline import StreamingPipeline


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_a_name_is_its_dtype(dtype: torch.dtype) -> None:
    assert dtype_of(name_of(dtype)) == dtype
    assert dtype_of(dtype) == dtype


@pytest.mark.parametrize("name", ["float8", "nn", "torch.float32", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"dtype must be one of float32, .*, got {name!r}"):
        dtype_of(name)


@pytest.mark.parametrize(
    ("has", "slow"),
    [((), True), (("_is_avx512_bf16_supported",), False), (("_is_amx_tile_supported",), False)],
)
def test_bfloat16_is_slow_where_the_processor_says_so(
    monkeypatch: pytest.MonkeyPatch, random_bundle: Path, has: tuple[str, ...], slow: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda check=check: check in has, raising=False)
    assert (slow_on_cpu(torch.bfloat16) is not None) == slow
    assert slow_on_cpu(torch.float32) is None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        StreamingPipeline.from_pretrained(str(random_bundle), dtype="bfloat16")
        StreamingPipeline.from_pretrained(str(random_bundle))
    expected = [
        "bfloat16 is slow on this CPU: it has no AVX-512 BF16 nor AMX, so torch converts every"
    ] * slow
    assert [str(w.message)[:80] for w in told if "slow" in str(w.message)] == [text[:80] for text in expected]
