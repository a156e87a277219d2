"""The next chunk of several streams at a time: the network sees them as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from pyrf.backends.torch.backend import TorchBackend
from pyrf.loop.finite import NotFiniteError
from pyrf.streaming.chunk import Chunk
from pyrf.streaming.model import StreamModel
from pyrf.streaming.state import StreamState, advance
from pyrf.streaming.stream import Stream


def can_join(model: StreamModel) -> bool:
    """Whether the model's backend computes several streams in one call; others compute one by one."""
    return isinstance(model.backend, TorchBackend)


def next_chunks(streams: Sequence[Stream]) -> list[Chunk | NotFiniteError | None]:
    """The next chunk of each stream, None for one that is closed.

    A stream whose values are no longer finite ends: the error stands in the place of its chunk, and the
    others go on.

    Chunks equal those of `next(stream)` up to a rounding of the last bit, as the network's matrix products
    have another size. Streams may have come differently far; each keeps its own cache, noise and decoder.
    The network calls' times in `Timing` are those of all streams together.

    Args:
        streams: different ones, of one pipeline, with frames of one size.

    Raises:
        ValueError: when they are not that.
    """
    if len({id(stream) for stream in streams}) != len(streams):
        raise ValueError("a stream was given twice")
    if len({(id(stream.model), stream.size) for stream in streams}) > 1:
        raise ValueError("streams that are computed together must have one pipeline and one frame size")
    if len(streams) == 1 or not can_join(streams[0].model):
        return [_next(stream) for stream in streams]
    chunks: dict[Stream, Chunk | NotFiniteError | None] = {}
    with ExitStack() as stack:
        running: dict[Stream, StreamState] = {}
        for stream in sorted(streams, key=id):  # one order for all, lest two callers wait for each other
            state = stack.enter_context(stream.computing())
            if state is not None:
                running[stream] = state
        living = [stream for stream in streams if stream in running]
        if living:
            chunks = dict(zip(living, advance([running[stream] for stream in living])))
            for stream, chunk in chunks.items():
                if chunk is None or isinstance(chunk, NotFiniteError):
                    stream.give_up()
    found = [chunks.get(stream) for stream in streams]
    return [chunk if _counts(stream, chunk) else None for stream, chunk in zip(streams, found)]


def _next(stream: Stream) -> Chunk | NotFiniteError | None:
    try:
        return next(stream, None)
    except NotFiniteError as error:
        return error


def _counts(stream: Stream, chunk: Chunk | NotFiniteError | None) -> bool:
    """Whether it is still wanted: a stream that was closed meanwhile has no chunk, but an error is told."""
    return isinstance(chunk, NotFiniteError) or not stream.closed
