"""Trains the valley's network on single latents, then on chunks of three, by flow matching.

Three latents of a chunk show the same scenery: with single ones a minute sees three times as many scenes.
Run or resume with: python -m pyrf.training.valley.chunk --codec runs/valley/codec --out runs/valley/chunk
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrf.models.codecs.codec import to_uint8
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec
from pyrf.training.runner.stage import TrainSettings
from pyrf.training.runner.trainer import train
from pyrf.training.scratch.codec_files import load_codec
from pyrf.training.scratch.latents import encode_scenes
from pyrf.training.scratch.teacher import TeacherSettings, TeacherStage
from pyrf.training.valley.clips import FIRST_SEED
from pyrf.training.valley.codec import linear_codec
from pyrf.training.valley.networks import load, new_network
from pyrf.video.strips import contact_sheet
from pyrf.worlds.valley.detector import detect
from pyrf.worlds.valley.world import Valley
from pyrf.worlds.world import Frames

STANDING = ("time", "land", "season", "weather", "balloon")
"""Attributes that a single latent can show."""
CHUNK = 3


class ChunkStage(TeacherStage):
    """A teacher that is judged on all frames that it decodes to, and single latents by what stands still."""

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        prompts, latents = self.sample_held_out()
        videos = [video for part in latents.split(8) for video in frames_of(self.codec.network, part)]
        contact_sheet(
            [(prompt.text, video) for prompt, video in zip(prompts, videos)][:24],
            folder / f"{step}.png",
            columns=1 if self.settings.frames == 1 else 3,
        )
        found: dict[str, list[bool]] = {}
        for prompt, video in zip(prompts, videos):
            seen = detect(video)
            for name in prompt.asks:
                if self.settings.frames > 1 or name in STANDING:
                    found.setdefault(name, []).append(seen.shows(name, prompt.asks))
        return {name: float(np.mean(right)) for name, right in found.items()}


@torch.no_grad()
def frames_of(network: TAEHV, latents: Tensor) -> list[Frames]:
    """Latents [B, F, C, h, w] -> all frames of each, uint8 [4F, H, W, 3]."""
    decoded = to_uint8(network.decode(latents))
    return list(decoded.permute(0, 1, 3, 4, 2).contiguous().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", type=Path, required=True, help="folder that the codec was exported to")
    parser.add_argument("--out", type=Path, required=True, help="folder of latents, checkpoints and weights")
    parser.add_argument("--scenes", type=int, default=6000, help="to encode, a multiple of 250")
    parser.add_argument("--frames", type=int, default=1, help="latent frames of a sample: 1, then 3")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3, help="of Muon, and of AdamW for the rest")
    parser.add_argument("--start", type=Path, help="folder of the network to go on from")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    def build() -> ChunkStage:
        world = Valley()
        linear = linear_codec(world, arguments.codec)
        scenes = encode_scenes(linear, world, arguments.scenes, FIRST_SEED, arguments.codec / "latents")
        codec = load_codec(arguments.codec).eval().requires_grad_(False)
        codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = new_network() if arguments.start is None else load(arguments.start)
        settings = TeacherSettings(frames=arguments.frames, shift=2.0, eval_prompts=48)
        return ChunkStage(settings, network, scenes, TAEHVCodec(codec), arguments.batch)

    settings = TrainSettings(
        steps=arguments.steps,
        batch=arguments.batch,
        lr=arguments.lr,
        adam_lr=arguments.lr,
        betas=(0.9, 0.95),
        weight_decay=0.01,
        decay=0.4,
        ema=0.998,
        compile=False,
        eval_minutes=20,
    )
    train(build, settings, arguments.out)


if __name__ == "__main__":
    main()
