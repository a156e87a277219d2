"""The models of `pyrf serve`: their names, what several of them cannot have, and their loading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrf.files import expanded

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """Where models are, by the names that clients choose them by.

    Args:
        given: bundled names, directories or hub ids, each of which may stand behind `NAME=`.

    Raises:
        ValueError: when two have one name, or one is empty.
    """
    models: dict[str, str] = {}
    for text in given:
        name, model = _named(text)
        if not model.strip():
            raise ValueError(f"--model {text!r} names no model; give a bundled one, a directory or a hub id")
        if name in models:
            raise ValueError(f"two models are called {name!r}; name one of them: --model OTHER={model}")
        models[name] = model
    return models


def _named(text: str) -> tuple[str, str]:
    """What a model is called, and where it is; a path may hold `=` itself."""
    name, equals, model = text.partition("=")
    if not equals or not _NAME.fullmatch(name) or Path(expanded(text)).exists():
        return text, text
    return name, model


def check_several(models: Mapping[str, str], options: Mapping[str, object]) -> None:
    """Refuse for several models what belongs to the weights, or to the GPUs, of one.

    Args:
        options: what was given, by its flag; what is None or empty was not.

    Raises:
        ValueError: for the first of them.
    """
    if len(models) == 1:
        return
    for flag, value in options.items():
        if value:
            raise ValueError(
                f"{flag} is for one model, and {len(models)} are served: {', '.join(models)}; leave it out, "
                "or serve its model with a `pyrf serve` of its own"
            )


def load_models(
    models: Mapping[str, str], options: Mapping[str, Any], report: Callable[[float], None]
) -> dict[str, StreamingPipeline]:
    """Load models one after another, once all together fit into the memory.

    Args:
        models: where they are, by their names.
        options: of `StreamingPipeline.from_pretrained`, the same for all.
        report: takes the share that is done, 0..1.

    Raises:
        ValueError: as that does, for any of them, and when they do not fit; no weights are read before.
    """
    from pyrf.loading import check_together, decide, load
    from pyrf.pipeline import StreamingPipeline

    report(0.0)
    decisions = {}
    for name, model in models.items():
        with _naming(name, several=len(models) > 1):
            decisions[name] = decide(model, **options)
    check_together(decisions)
    pipes = {}
    for name, decision in decisions.items():
        with _naming(name, several=len(models) > 1):
            pipes[name] = StreamingPipeline(decision, load(decision))
        report(len(pipes) / len(models))
    return pipes


@contextmanager
def _naming(name: str, *, several: bool) -> Iterator[None]:
    """Errors say which model they are of, where there are several."""
    try:
        yield
    except ValueError as error:
        if not several:
            raise
        raise ValueError(f"model {name}: {error}") from error
