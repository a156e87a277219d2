"""Streams of a student, made as inference makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.inference import unmixed
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.models.dit.model import WanModel
from pyrf.worlds.world import Frames, World

T = TypeVar("T")

BATCH = 16
"""Prompts that are streamed side by side."""


@dataclass(frozen=True)
class Student:
    """All that a stream needs.

    Attributes:
        encode: prompts to text rows, [B, text_len, text_dim].
    """

    dit: WanModel
    encode: Callable[[list[str]], Tensor]
    codec: Codec
    stream: StreamConfig
    rollout: type[TorchRollout] = TorchRollout


@torch.no_grad()
@unmixed()
def make_videos(
    student: Student, world: World, captions: list[str], seeds: Sequence[int], seconds: float
) -> Frames:
    """One video per caption at the world's size and rate, streamed side by side: uint8 [B, T, H, W, 3]."""
    codec, stream = student.codec, student.stream
    size = latent_size(world.height, world.width, codec)
    loop = student.rollout(student.dit, stream, len(captions), size, student.encode(captions)).loop(seeds)
    decoder = codec.decoder()
    frames_in_chunk = codec.temporal_stride * stream.chunk_frames
    chunks = math.ceil((seconds * world.fps + codec.temporal_stride - 1) / frames_in_chunk)
    frames = [decoder.decode(loop.next_chunk()).cpu() for _ in range(chunks)]
    return torch.cat(frames, dim=1)[:, : round(seconds * world.fps)].numpy()


def batches(prompts: list[T], size: int = BATCH) -> Iterator[tuple[range, list[T]]]:
    """Prompts that are streamed together, and their numbers."""
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        yield range(start, start + len(part)), part
