"""What tests of bundles ask again and again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyrf.bundle import Bundle, BundleError, load_bundle
from pyrf.bundle.weights import CheckpointError


def edit(path: Path, **values: object) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[name], t) for name, t in expected.items())


def refused(path: Path | str, use: Callable[[Bundle], object] | None = None, **options: Any) -> str:
    """The one-line message with which loading, or a use of the bundle, is refused."""

    def attempt() -> None:
        loaded = load_bundle(path, **options)
        if use is not None:
            use(loaded)

    with pytest.raises((BundleError, CheckpointError)) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)
