"""The next chunk of several streams at a time: the network sees them as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import torch

from pyrf.backends.torch.joint import JointRollout
from pyrf.backends.torch.rollout import TorchBackend, TorchRollout
from pyrf.loop.sampler import ChunkLoop
from pyrf.streaming.stream import Chunk, Clock, ClosedError, Stream, WatchedRollout

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline


def can_join(pipe: StreamingPipeline) -> bool:
    """Whether the pipeline's backend computes several streams in one call; others compute one by one."""
    return isinstance(pipe.engine, TorchBackend)


def next_chunks(streams: Sequence[Stream]) -> list[Chunk | None]:
    """The next chunk of each stream, None for one that is closed.

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
    if len({(id(stream._pipe), stream._size) for stream in streams}) > 1:
        raise ValueError("streams that are computed together must have one pipeline and one frame size")
    if len(streams) == 1 or not can_join(streams[0]._pipe):
        return [next(stream, None) for stream in streams]
    with ExitStack() as stack:
        for stream in sorted(streams, key=id):  # one order for all, lest two callers wait for each other
            stack.enter_context(stream._compute_lock)
        living = [stream for stream in streams if not stream._closed]
        try:
            chunks = dict(zip(living, _next_chunks(living))) if living else {}
        except ClosedError:
            chunks = {}
        except BaseException:
            for stream in living:
                stream._closed, stream._rollout = True, None
            raise
        return [None if stream._closed else chunks.get(stream) for stream in streams]


@torch.inference_mode()
def _next_chunks(streams: Sequence[Stream]) -> list[Chunk]:
    pipe = streams[0]._pipe
    clock = Clock(pipe.device)
    rollouts = [stream._started() for stream in streams]
    prompts_s = [stream._begin_chunk(rollout, clock) for stream, rollout in zip(streams, rollouts)]
    joint = JointRollout([cast(TorchRollout, rollout.backend.inner) for rollout in rollouts])
    backend = WatchedRollout(joint, lambda: all(stream._closed for stream in streams), pipe.device)
    loop = ChunkLoop(
        backend, pipe.stream_config, lambda: torch.cat([rollout.loop.draw() for rollout in rollouts])
    )
    latents = loop.next_chunk()
    loop_s = clock.lap()
    parts = latents.split([len(stream._seeds) for stream in streams])
    return [
        stream._end_chunk(part, clock, prompt_s, loop_s, backend.clean_s)
        for stream, part, prompt_s in zip(streams, parts, prompts_s)
    ]
