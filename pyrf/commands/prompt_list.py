"""A file of prompts, for a batch of videos: each line checked, with its number, before anything is loaded."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrf.checks import check_whole
from pyrf.config import MAX_SEED
from pyrf.files import expanded
from pyrf.streaming.mix import ClipPrompt, as_mix, texts_of

MAX_BYTES = 2**24
"""Of a file of prompts."""
MAX_PROMPTS = 100_000
MAX_NAME = 100
"""Characters of a video's name, without its suffix."""
FIELDS = ("prompt", "seed", "name")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_. -]*[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")  # names of devices on Windows


@dataclass(frozen=True)
class Job:
    """A video of a batch.

    Attributes:
        name: of its file, without a folder.
        prompt, seed: that it is made from.
    """

    name: str
    prompt: ClipPrompt
    seed: int


def read_jobs(path: str, seed: int) -> list[Job]:
    """The videos that a file of prompts asks for.

    Args:
        path: a .txt file with a prompt per line (# begins a comment), a .jsonl file with a text or an object
            {"prompt", "seed", "name"} per line, or a .csv file with columns of these names.
        seed: of the first prompt; it counts up over those that name none.

    Raises:
        ValueError: for a line that is no prompt, naming its number, and when two videos have one name.
        OSError: when the file cannot be read.
    """
    file = Path(expanded(path))
    readers = {".txt": _text, ".jsonl": _json_lines, ".csv": _csv}
    if file.suffix.lower() not in readers:
        raise ValueError(f"--prompts {path}: the file must be .txt, .jsonl or .csv")
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"--prompts {path}: a file of prompts may have {MAX_BYTES:,} bytes; split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8; save the file as text in UTF-8") from None
    jobs: list[Job] = []
    lines: dict[str, int] = {}
    for line, given in readers[file.suffix.lower()](text, path):
        if len(jobs) == MAX_PROMPTS:
            raise ValueError(f"{path}, line {line}: more than {MAX_PROMPTS:,} prompts; split the file")
        try:
            job = _job(given, len(jobs), seed)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from None
        key = job.name.lower()  # some file systems know no other difference
        if key in lines:
            raise ValueError(
                f"{path}, line {line}: the name {job.name} is that of line {lines[key]}; give another"
            )
        lines[key] = line
        jobs.append(job)
    if not jobs:
        raise ValueError(f"--prompts {path}: there is no prompt in it")
    return jobs


def _job(given: dict[str, Any], index: int, seed: int) -> Job:
    prompt = as_mix(given["prompt"])
    if not all(text.strip() for text in texts_of(prompt)):
        raise ValueError("the prompt is empty; say what to show in words")
    own = given.get("seed")
    number = seed + index if own is None else check_whole("seed", own, least=0, most=MAX_SEED)
    if number > MAX_SEED:
        raise ValueError(f"the seed {number} is above {MAX_SEED}; give a smaller --seed")
    name = given.get("name")
    return Job(_named(prompt, index) if name is None else _checked_name(name), prompt, number)


def _named(prompt: ClipPrompt, index: int) -> str:
    """`0001-a-red-circle.mp4`."""
    words = re.findall(r"[a-z0-9]+", " ".join(texts_of(prompt)).lower())
    slug = "-".join(words)[:60].rstrip("-")
    return f"{index + 1:04}{'-' if slug else ''}{slug}.mp4"


def _checked_name(name: object) -> str:
    stem = name.removesuffix(".mp4") if isinstance(name, str) else ""
    if not _NAME.fullmatch(stem) or len(stem) > MAX_NAME or _RESERVED.fullmatch(stem):
        raise ValueError(
            f"name must be up to {MAX_NAME} of A-Z a-z 0-9 _ - . and spaces, no folder, got {name!r:.120}"
        )
    return f"{stem}.mp4"


Lines = Iterator[tuple[int, dict[str, Any]]]
"""The numbers of lines, from 1, and what they say."""


def _text(text: str, path: str) -> Lines:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, {"prompt": line.strip()}


def _json_lines(text: str, path: str) -> Lines:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error})") from None
        given = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or "prompt" not in given or not set(given) <= set(FIELDS):
            raise ValueError(
                f'{path}, line {number}: a line must be a text, or an object with "prompt" and perhaps '
                f'"seed" and "name", got {line.strip():.80}'
            )
        yield number, given


def _csv(text: str, path: str) -> Lines:
    rows = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if "prompt" not in header or not set(header) <= set(FIELDS) or len(set(header)) < len(header):
            raise ValueError(
                f"{path}, line 1: the columns must be prompt and perhaps seed and name, "
                f"got {', '.join(header):.80}"
            )
        for row in rows:
            if not any(row):
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} fields where line 1 has {len(header)}; "
                    "a prompt with a comma needs quotes"
                )
            given: dict[str, Any] = {
                name: field for name, field in zip(header, row) if field or name == "prompt"
            }
            if "seed" in given:
                if not re.fullmatch(r"[0-9]{1,20}", given["seed"].strip()):
                    raise ValueError(
                        f"{path}, line {rows.line_num}: seed must be a whole number, "
                        f"got {given['seed']!r:.80}"
                    )
                given["seed"] = int(given["seed"])
            yield rows.line_num, given
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from None
