"""What `pyrf generate` tells of prompts and sizes that the model can take, but does not know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyrf import printing

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline


def tell_notices(
    pipe: StreamingPipeline, prompts: Iterable[str], height: int | None, width: int | None
) -> None:
    """Warn on stderr of words that the model has not learned, and of a size that it was not trained on."""
    for notice in pipe.model.notices(*prompts, height=height, width=width):
        printing.tell(f"warning: {notice}; see pyrf words")
