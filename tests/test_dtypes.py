"""Names of dtypes."""

from __future__ import annotations

import pytest
import torch

from pyrf.dtypes import dtype_of, name_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_a_name_is_its_dtype(dtype: torch.dtype) -> None:
    assert dtype_of(name_of(dtype)) == dtype
    assert dtype_of(dtype) == dtype


@pytest.mark.parametrize("name", ["float8", "nn", "torch.float32", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"dtype must be one of float32, .*, got {name!r}"):
        dtype_of(name)
