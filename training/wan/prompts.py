"""Prompts from a file, .txt, .jsonl or .parquet, in an order that every process knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from pyrf.extras import needs
from pyrf.files import expanded

COLUMN = "prompt"
SUFFIXES = (".txt", ".jsonl", ".parquet")


class PromptError(ValueError):
    """A prompt file that cannot be used; the message names the file and the line."""


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a file, in its order.

    A .txt file has one per line, a .jsonl file one object per line with a string `prompt`, and a .parquet
    file has a column `prompt` of strings. Blank lines are passed over.

    Raises:
        PromptError: when the file is missing, damaged or empty, or a line holds no prompt.
    """
    path = Path(expanded(path))
    if path.suffix not in SUFFIXES:
        raise PromptError(f"{path}: prompts must be a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise PromptError(f"{path}: no such file; name a file of prompts in the recipe's `prompts`")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _text_rows(path)
    prompts = []
    for number, value in rows:
        if not isinstance(value, str) or not value.strip():
            raise PromptError(f"{path}: line {number}: expected a prompt, found {value!r}")
        prompts.append(value.strip())
    if not prompts:
        raise PromptError(f"{path}: holds no prompts")
    return prompts


def _text_rows(path: Path) -> Iterator[tuple[int, object]]:
    """Line numbers and what they hold, of a .txt or .jsonl file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a JSON string may hold other breaks
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise PromptError(f"{path}: line {line}: not UTF-8") from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        if path.suffix == ".txt":
            yield number, text
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise PromptError(f"{path}: line {number}: not JSON ({error})") from error
        if not isinstance(record, dict) or COLUMN not in record:
            raise PromptError(
                f"{path}: line {number}: expected an object with a {COLUMN!r}, found {text:.60}"
            )
        yield number, record[COLUMN]


def _parquet_rows(path: Path) -> Iterator[tuple[int, object]]:
    """Row numbers and prompts of a .parquet file."""
    with needs("train", f"{path} (Parquet)"):
        import pyarrow
        import pyarrow.parquet
    try:
        names = pyarrow.parquet.read_schema(path).names
        if COLUMN not in names:
            raise PromptError(f"{path}: has no column {COLUMN!r}; its columns are {', '.join(names)}")
        values = pyarrow.parquet.read_table(path, columns=[COLUMN])[COLUMN].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise PromptError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from error
    return enumerate(values, 1)


class PromptOrder:
    """An endless order of prompts: each epoch a new permutation, known from the seed alone.

    A sample's prompt depends on its number only, so processes need not talk, and a resumed run goes on
    where it stopped.
    """

    def __init__(self, prompts: list[str], seed: int = 0) -> None:
        self.prompts, self.seed = prompts, seed
        self._epoch = -1
        self._permutation: list[int] = []

    def __getitem__(self, number: int) -> str:
        epoch, place = divmod(number, len(self.prompts))
        if epoch != self._epoch:
            generator = torch.Generator("cpu").manual_seed(self.seed * 1_000_003 + epoch)
            self._permutation = torch.randperm(
                len(self.prompts), generator=generator, dtype=torch.int64, device="cpu"
            ).tolist()
            self._epoch = epoch
        return self.prompts[self._permutation[place]]

    def __call__(self, samples: range) -> list[str]:
        """Prompts of numbered samples."""
        return [self[number] for number in samples]
