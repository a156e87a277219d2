"""Loading a model for a command, with what it will hold of memory on stderr before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyrf import printing
from pyrf.commands.options import use_threads

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline

MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="Memory that a stream may take, of the GPU, else of the process; what fits is chosen.",
        metavar="SIZE",
    ),
]


def load_pipeline(model: str, *, threads: int | None, **options: Any) -> StreamingPipeline:
    """`StreamingPipeline.from_pretrained` with as many CPU threads."""
    use_threads(threads)
    from pyrf.pipeline import StreamingPipeline

    with _told_memory():
        return StreamingPipeline.from_pretrained(model, **options)


class _Told(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        printing.tell(record.getMessage())


@contextmanager
def _told_memory() -> Iterator[None]:
    """Inside, what a load says of memory is printed on stderr."""
    logger, handler = logging.getLogger("pyrf.memory"), _Told(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
