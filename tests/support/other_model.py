"""A second small pipeline: other weights, another size, and a card of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyrf.bundle import Card, Shown
from pyrf.pipeline import StreamingPipeline
from tests.support import networks
from tests.support.random_bundle import save_random_bundle

HEIGHT, WIDTH = 64, 48
CARD = Card(
    vocabulary=tuple(networks.WORDS),
    sizes=((HEIGHT, WIDTH),),
    limits=("It shows noise.",),
    choices={"colour": ("red", "blue")},
    gallery=(Shown("a blue square", 7),),
)


def other_pipe(folder: Path) -> StreamingPipeline:
    """Written to a new folder, and loaded."""
    path = save_random_bundle(folder / "other", model_config=replace(networks.MODEL, num_layers=1))
    pipe = StreamingPipeline.from_pretrained(str(path))
    pipe.model = replace(pipe.model, card=CARD, height=HEIGHT, width=WIDTH)
    return pipe
