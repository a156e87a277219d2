"""Names that are imported at first use: what a type checker is told is what is there."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["pyrf", "pyrf.bundle", "pyrf.video"])
def test_both_lists_name_the_module_that_defines_it(package: str) -> None:
    module = import_module(package)
    assert module.__file__ is not None
    told = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert told == module._HOMES
    for name, home in module._HOMES.items():
        assert getattr(module, name).__module__ == home
    assert {*module._HOMES} <= {*module.__all__}
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018
