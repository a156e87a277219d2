"""Every tensor that pyrf makes says its dtype and device: a host program may have set other defaults."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._device import _device_constructors

import pyrf

ROOT = Path(pyrf.__file__).parent.parent
FOLDERS = ("pyrf", "export", "training", "integrations")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

MAKERS = {
    name
    for name in (getattr(function, "__name__", "") for function in _device_constructors())
    if getattr(torch, name, None) in _device_constructors()
} | {"normal", "from_file", "empty_permuted", "asarray"}
"""Functions of torch that take what they are not told from the host's defaults."""
LEGACY = {
    "Tensor",
    "FloatTensor",
    "LongTensor",
    "set_default_dtype",
    "set_default_device",
    "manual_seed",
    "seed",
}
"""Those that cannot be told, and those that change what others have set."""


OWNERS = {"training/runner/host_state.py"}
"""Where the state of the whole process is set, and put back."""


def faults(source: str) -> Iterator[tuple[int, str]]:
    """Line and reason of each tensor that is made without a dtype or device."""
    tree = ast.parse(source)
    parameters: set[ast.AST] = set()
    for node in ast.walk(tree):
        # Parameters follow the module that they are part of, as those of nn.Linear do.
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("nn.Parameter", "torch.nn.Parameter"):
            parameters.update(node.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            for alias in node.names:
                if alias.name in MAKERS | LEGACY - {"Tensor"}:
                    yield node.lineno, f"{alias.name} is imported by its name"
        if not isinstance(node, ast.Attribute | ast.Call):
            continue
        function = node.func if isinstance(node, ast.Call) else node
        if not isinstance(function, ast.Attribute) or ast.unparse(function.value) != "torch":
            continue
        if isinstance(node, ast.Call):
            told = {keyword.arg for keyword in node.keywords}
            missing = sorted({"dtype", "device"} - told)
            if function.attr in MAKERS and missing and node not in parameters:
                yield node.lineno, f"torch.{function.attr} without {' and '.join(missing)}"
            if function.attr in LEGACY:
                yield node.lineno, f"torch.{function.attr} is of the whole process"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_tensor_says_its_dtype_and_device(path: Path) -> None:
    if str(path.relative_to(ROOT)) not in OWNERS:
        assert not [f"{path}:{line}: {reason}" for line, reason in faults(path.read_text())]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("torch.zeros(3)", 1),
        ("torch.zeros(3, dtype=d)", 1),
        ("torch.arange(3, device=d)", 1),
        ("torch.tensor([1], dtype=d, device=e)", 0),
        ("nn.Parameter(torch.ones(3))", 0),
        ("torch.zeros_like(x)", 0),
        ("x.new_zeros(3)", 0),
        ("torch.manual_seed(0)", 1),
        ("torch.Generator('cpu').manual_seed(0)", 0),
        ("from torch import arange", 1),
    ],
)
def test_the_guard_sees_them(source: str, count: int) -> None:
    assert len(list(faults(source))) == count
