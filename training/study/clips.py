"""What the gates look at: clips as long as the window that teacher and critic see.

The teacher's are sampled with the guidance of the distillation, the student's are the beginnings of its
streams.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from pyrf.evaluation.streams import Student, batches, make_videos
from pyrf.models.codecs.codec import latent_size
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.printing import counted
from pyrf.training.recipe import RecipeError
from pyrf.training.scratch.recipe import DmdRecipe, ScratchRecipe
from pyrf.training.scratch.teacher import decode, sample
from pyrf.training.stages.networks import TextToVideo
from pyrf.worlds.world import Frames, MeasuredWorld

logger = logging.getLogger(__name__)

BATCH = 4
"""Clips that are made side by side."""
TEACHER_STEPS = 16
LEAST_SECONDS = 2
"""Of a clip, see `MeasuredWorld.measure`."""


class Clips:
    """Clips of the teacher, and of the student before distillation."""

    def __init__(self, recipe: ScratchRecipe, stage: DmdRecipe, folder: Path, world: MeasuredWorld) -> None:
        run = recipe.run_in(folder)
        self.world, self.stage, self.stream = world, stage, stage.stream or recipe.stream
        self.codec: TAEHVCodec = run.codec
        self.teacher: TextToVideo = run.network_of(stage.teacher).eval()
        student = run.network_of(stage.init).eval()
        self.student = Student(student.dit, student.encode, self.codec, self.stream)
        self.latents = stage.dmd.window_chunks * self.stream.chunk_frames
        frames = self.codec.temporal_stride * (self.latents - 1) + 1
        if frames < LEAST_SECONDS * world.fps:
            raise RecipeError(
                f"motion is measured in clips of {LEAST_SECONDS} seconds, and the stage's window has "
                f"{frames} frames; raise its window_chunks"
            )

    @torch.no_grad()
    def of_both(self, captions: list[str]) -> Iterator[tuple[str, Frames, Frames]]:
        """Each caption with the teacher's and the student's clip, uint8 [T, H, W, 3]; clip n has seed n."""
        size = latent_size(self.world.height, self.world.width, self.codec)
        shape = (self.latents, self.teacher.dit.config.in_channels, *size)
        for numbers, part in batches(captions, BATCH):
            latents = sample(
                self.teacher,
                part,
                shape,
                seed=numbers.start,
                steps=TEACHER_STEPS,
                shift=self.stream.shift,
                guidance_scale=1 + self.stage.dmd.guidance_scale,
            )
            taught = decode(latents, self.codec)
            seconds = len(taught[0]) / self.world.fps
            yield from zip(part, taught, make_videos(self.student, self.world, part, numbers, seconds))
            logger.info("%d of %s", numbers.stop, counted(len(captions), "pair") + " of clips")
