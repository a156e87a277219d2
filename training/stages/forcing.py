"""Teacher forcing: a clip's clean chunks stand before its noisy ones, which see what a stream would see.

Every chunk is computed in one forward over [clean past; noisy], as in a stream whose window is the clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.rope import rope_table
from pyrf.models.dit.attention import PartsAttention
from pyrf.models.dit.model import PromptCache
from pyrf.models.dit.parts import teacher_forcing_parts
from pyrf.training.stages.networks import TextToVideo


class TeacherForcing:
    """Forwards over clips of as many chunks as a stream's window holds.

    Args:
        stream: how a stream is cut.
        size: of the latents.
    """

    def __init__(self, stream: StreamConfig, size: LatentSize) -> None:
        self.chunk_frames, self.chunks, self.size = stream.chunk_frames, stream.slots, size
        frames = self.chunks * self.chunk_frames
        # Nothing looks at the last clean chunk: it is left out of the sequence.
        self.past = frames - self.chunk_frames
        self._parts = teacher_forcing_parts(self.chunks, self.chunk_frames * size.tokens)
        self._positions = [*range(self.past), *range(frames)]

    def forward(
        self, network: TextToVideo, context: Tensor, noisy: Tensor, timesteps: Tensor, prompt: PromptCache
    ) -> Tensor:
        """Velocity of the noisy half, [B, F, C, h, w]; timesteps [B, F]."""
        dit = network.dit
        rope = rope_table(dit.config, self._positions, self.size, dtype=dit.dtype, device=dit.device)
        flow = dit(
            torch.cat([context[:, : self.past], noisy], dim=1),
            torch.cat([torch.zeros_like(timesteps[:, : self.past]), timesteps], dim=1),
            prompt,
            attention=PartsAttention(rope, self._parts),
        )
        return flow[:, self.past :]

    def per_frame(self, of_chunks: Tensor) -> Tensor:
        """[B, chunks] -> [B, frames]."""
        return of_chunks.repeat_interleave(self.chunk_frames, dim=1)
