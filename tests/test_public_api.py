"""What users build on: names and signatures of the public modules, and the command line.

They are read from the source, so the file is the same for every Python, and no model code is imported.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from pyrf.commands.app import app
from pyrf.files import whole_file

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/data/public_api.txt"
RENEW = "python -m tests.test_public_api"
PUBLIC = ("pyrf", "pyrf.bundle", "pyrf.client", "pyrf.ops", "pyrf.video")
MADE_FOR_USERS = {"AsyncSession", "Session", "Stream", "StreamingPipeline"}
"""Classes that users get from a call; what their constructors take is pyrf's own matter."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.exists()), None)


@cache
def body_of(module: str) -> list[ast.stmt]:
    """Top-level statements of a module, those under an `if`, `try` or `with` included."""
    file = file_of(module)
    assert file is not None, f"{module} is no module of pyrf"
    statements = ast.parse(file.read_text()).body
    return [
        inner for s in statements for inner in (s.body if isinstance(s, ast.If | ast.Try | ast.With) else [s])
    ]


def public_names(module: str) -> list[str]:
    """`__all__`, whose parts may be another list of the module."""
    values: dict[str, list[str]] = {}
    for statement in body_of(module):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            parts = getattr(statement.value, "elts", getattr(statement.value, "keys", []))
            names: list[str] = []
            for part in parts:
                if isinstance(part, ast.Starred):
                    names += values[ast.unparse(part.value)]
                elif isinstance(part, ast.Constant):
                    names.append(str(part.value))
            values[statement.targets[0].id] = names
    return sorted(values["__all__"])


def definitions(module: str, name: str) -> tuple[str, list[ast.stmt]]:
    """Where a name is defined, and by what (by several statements, if it is overloaded)."""
    found: list[ast.stmt] = []
    for statement in body_of(module):
        match statement:
            case ast.ImportFrom(module=str(home)) if file_of(home):
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        return definitions(home, alias.name)
            case ast.FunctionDef(name=n) | ast.AsyncFunctionDef(name=n) | ast.ClassDef(name=n) if n == name:
                found.append(statement)
            case ast.Assign(targets=[ast.Name(id=n)]) | ast.AnnAssign(target=ast.Name(id=n)) if n == name:
                found.append(statement)
    return module, found


def signature(function: Function) -> str:
    marks = [ast.unparse(mark) for mark in function.decorator_list]
    told = [f"@{mark} " for mark in marks if mark in ("classmethod", "property", "staticmethod", "overload")]
    told += ["@setter "] * any(mark.endswith(".setter") for mark in marks)
    kind = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{''.join(told)}{kind} {function.name}({ast.unparse(function.args)}){result}"


def fields(definition: ast.ClassDef) -> Iterator[str]:
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.target).startswith("_"):
            yield ast.unparse(statement)


def methods(module: str, definition: ast.ClassDef) -> dict[str, list[str]]:
    """Public methods by name, those of base classes of pyrf included."""
    inherited: dict[str, list[str]] = {}
    for base in definition.bases:
        home, statements = definitions(module, ast.unparse(base))
        for statement in statements:
            if isinstance(statement, ast.ClassDef):
                inherited |= methods(home, statement)
    own: dict[str, list[str]] = {}
    for statement in definition.body:
        if isinstance(statement, Function):
            own.setdefault(statement.name, []).append(signature(statement))
    hidden = {"__post_init__", *(["__init__"] if definition.name in MADE_FOR_USERS else [])}
    kept = {
        name: lines
        for name, lines in own.items()
        if name not in hidden and (not name.startswith("_") or name.endswith("__"))
    }
    return dict(sorted((inherited | kept).items()))


def described(module: str, name: str) -> Iterator[str]:
    home, statements = definitions(module, name)
    assert statements, f"{module}.{name} is not defined anywhere"
    for statement in statements:
        if isinstance(statement, ast.ClassDef):
            bases = ", ".join(map(ast.unparse, statement.bases))
            yield f"class {name}({bases})" if bases else f"class {name}"
            yield from (f"    {line}" for line in fields(statement))
            yield from (f"    {line}" for lines in methods(home, statement).values() for line in lines)
        elif isinstance(statement, Function):
            yield signature(statement)
        else:
            yield name


def options(command: Any, path: str) -> Iterator[str]:
    """A command's arguments and sorted flags with their defaults, then the commands below it."""
    yield path
    for parameter in sorted(command.params, key=lambda p: p.opts if p.opts[0].startswith("-") else []):
        flags = "/".join([*parameter.opts, *parameter.secondary_opts])
        told = parameter.default if isinstance(parameter.default, str | int | float | Path) else None
        default = "" if told is None else f" = {told}"
        repeated = ", repeatable" * bool(getattr(parameter, "multiple", False))
        yield f"    {flags}{default}{', required' * bool(parameter.required)}{repeated}"
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from options(below, f"{path} {name}")


def public_api() -> list[str]:
    lines: list[str] = []
    for module in PUBLIC:
        lines += [f"# {module}", ""]
        for name in public_names(module):
            lines += [*described(module, name), ""]
    return [*lines, "# The command line", "", *options(typer.main.get_command(app), "pyrf")]


def test_public_api_is_what_the_file_says() -> None:
    held = GOLDEN.read_text().splitlines()
    diff = list(difflib.unified_diff(held, public_api(), "the file", "the code", lineterm="", n=1))
    told = "The public API has changed. If that is meant, say so in CHANGELOG.md and run"
    assert not diff, "\n".join([f"{told} `{RENEW}`:", *diff])


@pytest.mark.parametrize("module", PUBLIC)
def test_lazy_names_are_found_where_the_table_says(module: str) -> None:
    """A wrong line in a table of lazy imports would show only when the name is first used."""
    for statement in body_of(module):
        match statement:
            case ast.Assign(targets=[ast.Name(id="_HOMES")], value=ast.Dict() as table):
                for name, home in ast.literal_eval(table).items():
                    assert definitions(home, name)[1], f"{home} has no {name}"
                    assert definitions(home, name)[0] == definitions(module, name)[0]


if __name__ == "__main__":
    with whole_file(GOLDEN) as temporary:
        temporary.write_text("\n".join(public_api()) + "\n")
