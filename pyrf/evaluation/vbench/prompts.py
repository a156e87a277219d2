"""VBench's prompts from its own files: a text that names the video, and the text that it is made from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from pyrf.files import expanded

MAX_BYTES = 2**24
"""Of a file of prompts."""
MAX_NAME = 240
"""Bytes of a video's name without its number; file systems take 255. VBench's longest has 210."""
LONG_NAME = 100
"""Characters of a long video's name; its prompts are paragraphs."""
ALIKE = 0.8
"""Share of pairs that must have a word in common, else the two files do not go together."""


class Prompt(NamedTuple):
    """A prompt.

    Attributes:
        name: of its videos, `{name}-{i}.mp4`: the original text.
        text: to make them from.
    """

    name: str
    text: str


def read_prompts(
    original: str | Path, extended: str | Path | None = None, *, long: bool = False
) -> list[Prompt]:
    """VBench's prompts, each text once, in the order of the file.

    Args:
        original: VBench_full_info.json, or a text per line, as in VBench's all_dimension.txt.
        extended: a text per line, in the same order, to make the videos from; by default the original.
        long: names are the first LONG_NAME characters.

    Raises:
        ValueError: when a file is no list of prompts, the two do not go together, or a text names no file.
        OSError: when a file cannot be read.
    """
    texts = _texts(original)
    made_from = texts if extended is None else _lines(extended)
    if len(made_from) != len(texts):
        raise ValueError(
            f"{original} has {len(texts)} prompts, {extended} {len(made_from)}; give two files of one order"
        )
    if extended is not None:
        alike = sum(bool(_words(a) & _words(b)) for a, b in zip(texts, made_from))
        if alike < ALIKE * len(texts):
            raise ValueError(
                f"{original} and {extended} do not go together: {alike} of {len(texts)} lines share a word"
            )
    found: dict[str, Prompt] = {}
    whole: dict[str, str] = {}
    for text, own in zip(texts, made_from):
        name = _long_name(text) if long else text
        _check_name(name, original)
        if whole.setdefault(name, text) != text:
            raise ValueError(
                f"{original}: two prompts begin with {name!r}, and their videos would have one name"
            )
        found.setdefault(name, Prompt(name, own))
    return list(found.values())


def dimensions_of(info: str | Path) -> dict[str, set[str]]:
    """Dimension -> the texts that VBench scores it on, of VBench_full_info.json.

    Raises:
        ValueError: when the file is another one.
        OSError: when it cannot be read.
    """
    found: dict[str, set[str]] = {}
    for entry in _info(info):
        for dimension in entry.get("dimension", ()):
            found.setdefault(dimension, set()).add(entry["prompt_en"])
    if not found:
        raise ValueError(f"{info}: it names no dimensions; give VBench's VBench_full_info.json")
    return found


def _texts(path: str | Path) -> list[str]:
    if Path(path).suffix.lower() == ".json":
        return [entry["prompt_en"].strip() for entry in _info(path)]
    return _lines(path)


def _info(path: str | Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(_read(path))
    except ValueError as error:
        raise ValueError(f"{path}: damaged JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: expected a list of prompts, as in VBench's VBench_full_info.json")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt_en"), str):
            raise ValueError(f"{path}: an entry has no text prompt_en; give VBench's VBench_full_info.json")
    return entries


def _lines(path: str | Path) -> list[str]:
    lines = [line.strip() for line in _read(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: it holds no prompts; give a text per line")
    if "" in lines:
        raise ValueError(f"{path}: line {lines.index('') + 1} is empty; give a text per line")
    return lines


def _read(path: str | Path) -> str:
    with Path(expanded(path)).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes; give a file of prompts")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from error


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def _long_name(text: str) -> str:
    return re.sub(r"[/\\_\x00-\x1f]", " ", text)[:LONG_NAME].strip()


def _check_name(name: str, path: str | Path) -> None:
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f]", name):
        raise ValueError(f"{path}: {name!r:.80} cannot be the name of a video")
    if len(name.encode()) > MAX_NAME:
        raise ValueError(f"{path}: {name!r:.80}... is longer than {MAX_NAME} bytes, too long for a file name")
