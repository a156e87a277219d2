"""Trains the network of the valley's detector on single frames.

Run or resume with: python -m pyrf.training.valley.detector --out runs/valley/detector
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pyrf.files import whole_file
from pyrf.loop.noise import below, gauss, uniform
from pyrf.training.runner.stage import Draw, Stage, TrainSettings
from pyrf.training.runner.trainer import train
from pyrf.training.scratch.clips import FIRST_SEED, HELD_OUT_SEED
from pyrf.training.valley.frames import UNSURE, LabelledFrames, labelled_frames
from pyrf.worlds.valley.detector_network import CLASSES, FrameReader
from pyrf.worlds.valley.world import Valley


class DetectorStage(Stage[FrameReader]):
    def __init__(self, frames: LabelledFrames, held_out: LabelledFrames, batch: int) -> None:
        self.frames, self.held_out, self.batch = frames, held_out, batch
        self.module: FrameReader = FrameReader().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = below(len(self.frames), (self.batch,), draw.generator)
        frames, maps = self.frames.frames[index].float() / 255, self.frames.maps[index].long()
        flipped = uniform((self.batch,), draw.generator) < 0.5
        frames[flipped], maps[flipped] = frames[flipped].flip(-1), maps[flipped].flip(-1)
        frames = damaged(frames, draw.generator)
        logits, map_logits = self.module(frames.contiguous(memory_format=torch.channels_last))
        loss = map_loss(map_logits, maps)
        for number, name in enumerate(CLASSES):
            loss = loss + F.cross_entropy(logits[name], self.frames.classes[index, number])
        return loss, {}

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        scores: dict[str, list[Tensor]] = {}
        held = self.held_out
        for frames, classes, maps in zip(
            held.frames.split(50), held.classes.split(50), held.maps.long().split(50)
        ):
            logits, map_logits = self.module(frames.float() / 255)
            for number, name in enumerate(CLASSES):
                scores.setdefault(name, []).append(logits[name].argmax(1) == classes[:, number])
            is_there = (maps > 0) & (maps != UNSURE)
            scores.setdefault("balloon", []).append(map_logits.argmax(1)[is_there] == maps[is_there])
            scores.setdefault("empty", []).append(map_logits.argmax(1)[maps == 0] == 0)
        return {name: float(torch.cat(right).float().mean()) for name, right in scores.items()}

    def export(self, folder: Path) -> None:
        save_reader(self.module, folder / "detector.safetensors")


def damaged(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames [B, 3, H, W] as a small codec or an early network shows them: blurred, in blocks, noisy."""
    batch, _, height, width = frames.shape

    def some(share: float) -> Tensor:
        chosen = uniform((batch, 1, 1, 1), generator) < share
        return chosen * uniform((batch, 1, 1, 1), generator)

    small = F.avg_pool2d(frames, 2)
    blurred = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    frames = torch.lerp(frames, blurred, some(0.6))
    blocks = F.interpolate(F.avg_pool2d(small, 4), size=(height, width))
    frames = torch.lerp(frames, blocks, 0.35 * some(0.4))
    gain = 1 + 0.12 * (uniform((batch, 1, 1, 1), generator) - 0.5)
    noise = gauss(frames.shape, generator)
    return (frames * gain + 0.05 * some(0.5) * noise).clamp(0, 1)


def map_loss(logits: Tensor, maps: Tensor) -> Tensor:
    """Cross-entropy of the balloon's map, where its few cells weigh as much as all the others."""
    error = F.cross_entropy(logits, maps.masked_fill(maps == UNSURE, 0), reduction="none")
    weight = torch.where(maps > 0, 12.0, 1.0) * (maps != UNSURE)
    return 4 * (error * weight).sum() / weight.sum()


def save_reader(module: nn.Module, path: Path) -> None:
    """Write the weights as float16, as they are shipped."""
    state: dict[str, Tensor] = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with whole_file(path) as temporary:
        save_file(state, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, logs and weights")
    parser.add_argument("--scenes", type=int, default=5000, help="to draw frames from, a multiple of 250")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=24)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    world = Valley()
    folder: Path = arguments.out

    def build() -> DetectorStage:
        frames = labelled_frames(world, arguments.scenes, FIRST_SEED, folder / "frames")
        held_out = labelled_frames(world, 250, HELD_OUT_SEED, folder / "held_out")
        return DetectorStage(frames, held_out, arguments.batch)

    settings = TrainSettings(
        steps=arguments.steps,
        batch=arguments.batch,
        adam_lr=2e-3,
        betas=(0.9, 0.99),
        weight_decay=1e-3,
        decay=0.5,
        ema=0.99,
        compile=False,
        eval_minutes=3,
    )
    train(build, settings, folder)


if __name__ == "__main__":
    main()
