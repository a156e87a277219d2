"""Streams of a student, made as inference makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.sampler import ChunkLoop, SeededNoise
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.models.dit.model import WanModel
from pyrf.worlds.world import Frames, Prompt, World

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
    backend: type[TorchRollout] = TorchRollout


@torch.no_grad()
def make_videos(
    student: Student, world: World, captions: list[str], seeds: Sequence[int], seconds: float
) -> Frames:
    """One video per caption at the world's size and rate, streamed side by side: uint8 [B, T, H, W, 3]."""
    codec, stream = student.codec, student.stream
    height, width = latent_size(world.height, world.width, codec)
    backend = student.backend(student.dit, stream)
    backend.start(len(captions), height, width)
    backend.set_prompt(student.encode(captions))
    shape = (stream.chunk_frames, codec.latent_channels, height, width)
    loop = ChunkLoop(backend, stream, SeededNoise(seeds, shape))
    decoder = codec.decoder()
    frames_in_chunk = codec.temporal_stride * stream.chunk_frames
    chunks = math.ceil((seconds * world.fps + codec.temporal_stride - 1) / frames_in_chunk)
    frames = [decoder.decode(loop.next_chunk()) for _ in range(chunks)]
    return torch.cat(frames, dim=1)[:, : round(seconds * world.fps)].numpy()


def batches(prompts: list[Prompt]) -> Iterator[tuple[range, list[Prompt]]]:
    """Prompts that are streamed together, and their numbers."""
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        yield range(start, start + len(part)), part
