"""Chunks of a stream, and two prompts."""

import numpy as np

from pyrf.pipeline import Chunk, Stream

RED, BLUE = "a red circle moves right", "a blue star spins"


def take(stream: Stream, count: int) -> list[Chunk]:
    return [next(stream) for _ in range(count)]


def frames_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks], axis=-4)
