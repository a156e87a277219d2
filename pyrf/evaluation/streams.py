"""Streams of a student, made as inference makes them and judged by the world's detector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.sampler import FewStepSampler
from pyrf.loop.schedule import TIMESTEPS
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT
from pyrf.models.dit.model import WanModel
from pyrf.models.text.encoder import TextEncoder
from pyrf.video.strips import contact_sheet
from pyrf.worlds.shapes.grading import Prompt, held_out_prompts, judge
from pyrf.worlds.shapes.scenes import FPS, HEIGHT, WIDTH, World

TitledVideo = tuple[str, NDArray[np.uint8]]
"""A prompt and its video, uint8 [T, H, W, 3]."""
JUDGED_SECONDS = 5
BATCH = 16


@dataclass(frozen=True)
class Student:
    """All that a stream needs."""

    dit: WanModel
    text: TextEncoder
    codec: Codec
    stream: StreamConfig
    rollout: type[TorchRollout] = TorchRollout


def few_step_sigmas(stream: StreamConfig) -> Tensor:
    """Noise levels of the denoise calls, falling, float32."""
    return torch.tensor(FewStepSampler(stream).timesteps) / TIMESTEPS


@torch.no_grad()
def make_videos(
    student: Student, captions: list[str], seeds: Sequence[int], seconds: float
) -> NDArray[np.uint8]:
    """One video a caption, streamed side by side: uint8 [B, T, H, W, 3]."""
    codec, stream = student.codec, student.stream
    size, prompt = latent_size(HEIGHT, WIDTH, codec), student.text.encode(captions)
    loop = student.rollout(student.dit, stream, len(captions), size, prompt).loop(seeds)
    decoder = codec.decoder()
    frames_per_chunk = FRAMES_PER_LATENT * stream.chunk_frames
    chunks = math.ceil((seconds * FPS + FRAMES_PER_LATENT - 1) / frames_per_chunk)
    frames = [decoder.decode(loop.next_chunk()) for _ in range(chunks)]
    return torch.cat(frames, dim=1)[:, : round(seconds * FPS)].numpy()


def batches(prompts: list[Prompt]) -> Iterator[tuple[range, list[Prompt]]]:
    """Prompts that are streamed together, and their numbers."""
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        yield range(start, start + len(part)), part


def score_streams(
    student: Student, world: World, count: int, sheet: Path, seconds: float = JUDGED_SECONDS
) -> tuple[dict[str, float], list[TitledVideo]]:
    """Accuracy on held-out prompts over the last five seconds of streams, and the first streams.

    Prompt n has seed n. The sheet shows up to 12 streams from beginning to end, which are those returned.
    """
    prompts = held_out_prompts(world, count)
    ends: list[NDArray[np.uint8]] = []
    rows: list[TitledVideo] = []
    for seeds, part in batches(prompts):
        videos = make_videos(student, [p.text for p in part], seeds, seconds)
        ends.extend(video[-JUDGED_SECONDS * FPS :].copy() for video in videos)
        if len(rows) < 12:
            rows += [(p.text, video) for p, video in zip(part, videos)]
    rows = rows[:12]
    contact_sheet(rows, sheet)
    return judge(ends, prompts)[0], rows
