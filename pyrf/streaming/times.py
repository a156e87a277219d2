"""When the chunks of a stream start, without a loaded model."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkTimes:
    """The frames of a stream's chunks.

    Attributes:
        fps: frames per second.
        chunk_frames: latent frames of a chunk.
        temporal_stride: frames of a latent frame, but for the first of a stream, which has one.
    """

    fps: float
    chunk_frames: int
    temporal_stride: int

    def num_frames_of(self, chunks: int) -> int:
        """Frames that the first `chunks` chunks of a stream have."""
        return 1 + self.temporal_stride * (chunks * self.chunk_frames - 1)

    @property
    def frames_in_chunk(self) -> int:
        """Frames of every chunk but the first of a stream that continues nothing, which is shorter."""
        return self.temporal_stride * self.chunk_frames

    def start_of_chunk(self, chunk: int, *, continues: bool = False) -> int:
        """The frame at which a chunk starts.

        Args:
            continues: whether the stream goes on from an image or a video.
        """
        if chunk == 0:
            return 0
        first = self.frames_in_chunk if continues else self.num_frames_of(1)
        return first + (chunk - 1) * self.frames_in_chunk

    def chunk_of_frame(self, frame: float, *, continues: bool = False) -> int:
        """The first chunk that starts at a frame or later; `continues` as in `start_of_chunk`."""
        if frame <= 0:
            return 0
        later = frame - self.start_of_chunk(1, continues=continues)
        return 1 + max(0, math.ceil(later / self.frames_in_chunk))
