"""Streams of a causal network, made as inference makes them and judged by the world's detector."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrf.backends.torch import TorchBackend
from pyrf.config import StreamConfig
from pyrf.models.taehv import FRAMES_PER_LATENT, TAEHVCodec
from pyrf.sampler import ChunkLoop, FewStepSampler, SeededNoise
from pyrf.training.judge import Prompt, held_out_prompts, judge
from pyrf.training.models import TextToVideo
from pyrf.training.video import contact_sheet
from pyrf.training.worlds.shapes import FPS, HEIGHT, WIDTH, World


def few_step_sigmas(stream: StreamConfig) -> Tensor:
    """Noise levels of the denoise calls, falling, float32."""
    return torch.tensor(FewStepSampler(stream).timesteps) / 1000


@torch.no_grad()
def make_streams(
    network: TextToVideo, stream: StreamConfig, codec: TAEHVCodec, prompts: list[Prompt], seconds: float
) -> list[NDArray[np.uint8]]:
    """A video of each prompt, uint8 [T, H, W, 3], the n-th with seed n."""
    chunks = math.ceil(seconds * FPS / (FRAMES_PER_LATENT * stream.chunk_frames))
    shape = (
        stream.chunk_frames,
        codec.latent_channels,
        HEIGHT // codec.spatial_stride,
        WIDTH // codec.spatial_stride,
    )
    videos: list[NDArray[np.uint8]] = []
    for start in range(0, len(prompts), 16):
        part = prompts[start : start + 16]
        backend = TorchBackend(network.dit, stream)
        backend.start(len(part), *shape[2:])
        backend.set_prompt(network.text.encode([p.text for p in part]))
        loop = ChunkLoop(backend, stream, SeededNoise(range(start, start + len(part)), shape))
        decoder = codec.decoder()
        frames = [decoder.decode(loop.next_chunk()) for _ in range(chunks)]
        videos.extend(torch.cat(frames, dim=1).numpy())
    return videos


def score_streams(
    network: TextToVideo,
    world: World,
    stream: StreamConfig,
    codec: TAEHVCodec,
    count: int,
    sheet: Path,
    seconds: float = 5.0,
) -> dict[str, float]:
    """Accuracy of the last five seconds of streams on held-out prompts; draws the first of them."""
    prompts = held_out_prompts(world, count)
    videos = make_streams(network, stream, codec, prompts, seconds)
    contact_sheet([(p.text, v) for p, v in zip(prompts, videos)][:12], sheet)
    return judge([video[-5 * FPS :] for video in videos], prompts)[0]
