"""The TAEHV codec of a world, trained on reconstructions.

A small penalty holds each latent channel near mean 0 and deviation 1, as the DiT's noise has.
(Normalising over the batch instead fails: it hides a scene's own colours from the decoder.) Noise on
the latents makes the decoder forgive what a few-step student gets wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pyrf.loop.noise import gauss, uniform
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT, TAEHV, MemoryBlock, TAEHVConfig
from pyrf.settings import Settings
from pyrf.training.runner.stage import Draw, Stage
from pyrf.training.scratch.clips import FIRST_SEED, WARM_LATENTS, close_up, edges, to_tensor
from pyrf.training.scratch.codec_files import save_codec
from pyrf.video.strips import contact_sheet
from pyrf.worlds.world import World, WorldPrompt, draw_scene


class CodecSettings(Settings):
    """What the codec is and what it is trained on.

    Attributes:
        latents: latent frames of a clip.
        noise: largest deviation of the noise on the latents.
        penalty: weight of what holds the latents near mean 0 and deviation 1.
        freeze_encoder: sharpen the decoder only, so that latents keep their meaning.
        crop: side in pixels of the windows around the object that the first `crop_steps` steps see,
            a multiple of the spatial stride and no more than a frame's: most of a frame is background, which
            is learnt at once.
    """

    encoder_width: int
    decoder_widths: tuple[int, int, int, int]
    blocks: int
    latents: int = 3
    noise: float = 0.15
    penalty: float = 0.02
    freeze_encoder: bool = False
    crop: int = Field(default=48, gt=0, multiple_of=8)
    crop_steps: int = 0


def initialize(network: TAEHV) -> None:
    """Starting weights: memory blocks near the identity, output near mid grey."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, MemoryBlock):
            _scale(module.conv[-1], 0.3)
    _scale(network.decoder[-1], 0.1)
    nn.init.constant_(network.decoder[-1].get_parameter("bias"), 0.5)


@torch.no_grad()
def _scale(conv: nn.Module, factor: float) -> None:
    conv.get_parameter("weight").mul_(factor)


class CodecStage(Stage[TAEHV]):
    """`start` gives the weights to go on from; without it the codec is new."""

    def __init__(
        self, settings: CodecSettings, world: World, batch: int, start: dict[str, Tensor] | None = None
    ) -> None:
        self.settings, self.world, self.batch = settings, world, batch
        config = TAEHVConfig(
            encoder_width=settings.encoder_width,
            decoder_widths=settings.decoder_widths,
            blocks=settings.blocks,
            patch_size=2,
            upscale=(False, True, True),
        )
        self.module = TAEHV(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialize(self.module)
        if start is not None:
            self.module.load_state_dict(start)
        self.module.encoder.requires_grad_(not settings.freeze_encoder)

    def hidden_parameters(self) -> Iterable[nn.Parameter]:
        """All but those of the first and last layers of both halves."""
        last = len(self.module.encoder) - 1, len(self.module.decoder) - 1
        ends = ("encoder.0.", f"encoder.{last[0]}.", "decoder.1.", f"decoder.{last[1]}.")
        return [p for name, p in self.module.named_parameters() if not name.startswith(ends)]

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        step, generator, rng = draw.step, draw.generator, draw.rng
        count = FRAMES_PER_LATENT * self.settings.latents
        crop = self.settings.crop if step < self.settings.crop_steps else None
        clips = []
        for _ in range(self.batch):
            scene, scene_rng = draw_scene(self.world, rng.randrange(FIRST_SEED, 2 * FIRST_SEED))
            first = scene_rng.randrange(200)
            clip = scene.render(first, count)
            if crop is not None:
                size = self.world.height, self.world.width
                (subject,) = scene.subjects(first + count // 2)
                clip = clip[:, *close_up((int(subject.y), int(subject.x)), size, crop, rng)]
            clips.append(clip)
        video = to_tensor(clips)
        z = self.module.encode(video)
        channels = z.transpose(1, 2).flatten(2).transpose(0, 1).flatten(1)
        penalty = channels.mean(1).square().mean() + (channels.std(1) - 1).square().mean()
        # half of the steps decode from the middle, with no memory, as a stream's first chunk does
        skip = WARM_LATENTS if step % 2 else 0
        z, video = z[:, skip:], video[:, FRAMES_PER_LATENT * skip :]
        level = self.settings.noise * uniform((len(z), 1, 1, 1, 1), generator)
        decoded = self.module.decode(z + level * gauss(z.shape, generator))
        error = decoded - video
        weight = edge_weight(video)
        loss = 2 * (weight * error.abs()).mean() + 8 * (weight * error.square()).mean()
        loss = loss + self.settings.penalty * penalty
        return loss, {
            "penalty": float(penalty.detach()),
            "psnr": -10 * float(torch.log10(error.detach().square().mean())),
        }

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        module = self.module
        psnr, right, rows = [], [], []
        for seed in range(32):
            scene, _ = draw_scene(self.world, seed)
            frames = scene.render(0, 84)
            decoded = module.decode(module.encode(to_tensor([frames])))[0].clamp(0, 1)
            video = decoded.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
            psnr.append(-10 * np.log10(np.mean((video / 255.0 - frames / 255.0) ** 2)))
            verdicts = self.world.judge(video, WorldPrompt("", scene.facts))
            right.append({name: verdicts[name] for name in scene.facts})
            if seed < 6:
                rows += [("true", frames), ("decoded", video)]
        contact_sheet(rows, folder / f"codec_{step}.png")
        return {"psnr": float(np.mean(psnr)), **{k: float(np.mean([r[k] for r in right])) for k in right[0]}}

    def export(self, folder: Path) -> None:
        save_codec(self.module, folder)


def edge_weight(video: Tensor) -> Tensor:
    """Weights [B, T, 1, H, W]: 1 on flat parts, up to 5 within a pixel or two of an edge."""
    return (1 + 6 * F.max_pool2d(edges(video), 3, 1, 1).clamp(max=0.7)).unsqueeze(2)
