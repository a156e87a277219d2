"""A file of settings for `pyrf serve`: what its flags say, and the settings that have no flag."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import typer

from pyrf.serve.settings import ServeSettings
from pyrf.serve.yaml_file import read_yaml

_EXTRA = "pyrf.serve.settings"
UNFLAGGED = tuple(
    field.name
    for field in fields(ServeSettings)
    if field.metadata["flag"] is None and field.name != "loopback"
)
"""Settings without a flag; whether only this machine is let in follows from the address."""


def take_config(context: typer.Context, file: str | None) -> str | None:
    """The callback of `--config`: its values become the defaults of the flags. Flags and variables win.

    Raises:
        ValueError: when the file cannot be read, or a key names no setting.
    """
    if file is None:
        return None
    flags = {
        option.removeprefix("--"): parameter
        for parameter in context.command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if not parameter.is_eager
    }
    defaults: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in _read(file).items():
        name = str(key).replace("_", "-")
        if (parameter := flags.get(name)) is not None:
            alone = getattr(parameter, "multiple", False) and not isinstance(value, list)
            if value is not None:
                defaults[str(parameter.name)] = [value] if alone else value
        elif name.replace("-", "_") in UNFLAGGED:
            extra[name.replace("-", "_")] = value
        else:
            raise ValueError(f"{file}: there is no setting {key!r}{_near(name, [*flags, *UNFLAGGED])}")
    context.default_map = {**(context.default_map or {}), **defaults}
    context.meta[_EXTRA] = _checked(file, extra)
    return file


def unflagged(context: typer.Context) -> dict[str, Any]:
    """The settings without a flag that `--config` gave."""
    return dict(context.meta.get(_EXTRA, {}))


def _read(file: str) -> dict[Any, Any]:
    values = read_yaml("--config", file, of="settings")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"--config {file} must hold `name: value` lines, got {type(values).__name__}")
    return values


def _checked(file: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the types that `ServeSettings` gives them."""
    types = get_type_hints(ServeSettings)
    for name, value in settings.items():
        wanted = get_args(types[name]) or (types[name],)
        if float in wanted:
            wanted = (*wanted, int)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            names = " or ".join(sorted(kind.__name__ for kind in wanted if kind is not type(None)))
            raise ValueError(f"{file}: {name} must be {names}, got {value!r}")
    return settings


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [one.replace("_", "-") for one in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else "; `pyrf serve --help` lists the flags"
