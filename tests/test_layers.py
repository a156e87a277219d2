"""The order of rooms: imports go down it, never up, lazy ones and those for typing included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = (
    ("partial", "printing"),
    ("checks", "dtypes", "extras", "files", "forks", "lazy", "machine"),
    ("moments", "settings", "stops", "telemetry"),
    ("config", "endpoints", "threads"),
    ("protocol",),
    ("kernels",),
    ("ops",),
    ("loop",),
    ("models",),
    ("bundle",),
    ("video",),
    ("export",),
    ("backends",),
    ("memory",),
    ("streaming",),
    ("loading",),
    ("pipeline",),
    ("integrations",),
    ("worlds",),
    ("evaluation",),
    ("reports",),
    ("training",),
    ("client", "serve"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""Rooms and modules of `pyrf`, bottom up; those of one line do not import each other."""

LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, `pyrf` itself left out: it names what is public, from anywhere."""
    for folder, name in (
        (ROOT / "pyrf", "pyrf"),
        (ROOT / "export", "pyrf.export"),
        (ROOT / "training", "pyrf.training"),
    ):
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            module = ".".join(part for part in parts if part != "__init__")
            if module != "pyrf":
                yield module, path


MODULES = dict(modules())


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of pyrf's own."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("pyrf"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("pyrf."))


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in MODULES} == set(LEVEL)


@pytest.mark.parametrize("name", LEVEL)
def test_imports_go_down(name: str) -> None:
    up = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for module, path in MODULES.items()
        if room(module) == name
        for line, target in imports(path)
        if target not in ("pyrf", "pyrf._native")
        and room(target) != name
        and LEVEL[room(target)] >= LEVEL[name]
    ]
    assert not up, "\n".join(up)


def test_no_circles() -> None:
    """Not even between the modules of one room."""
    graph = {
        module: {t for _, t in imports(path) if t in MODULES and t != module}
        for module, path in MODULES.items()
    }
    while leaves := [module for module, targets in graph.items() if not targets & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, {module: sorted(targets & graph.keys()) for module, targets in graph.items()}
