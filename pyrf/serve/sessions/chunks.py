"""What a session was asked to be, and a finished chunk on its way to a viewer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrf.protocol import FrameFields, Pace
from pyrf.serve.keys.key import Key

if TYPE_CHECKING:
    from pyrf.streaming.chunk import Chunk


@dataclass(frozen=True)
class SessionOptions:
    """What a session was asked to be.

    Attributes:
        height, width: of a frame in pixels.
        fps: frames per second.
        pace: whether chunks are made as they are played, or as fast as they are taken.
        grace_s: seconds that the session outlives its viewer.
        lead_s: seconds that a real-time stream may be ahead of being played.
        buffer_chunks: finished chunks that wait for a viewer.
        pause_s: seconds that a pause may last.
        address: of whoever asked for it, for quotas.
        is_clip: whether it is there for a clip.
        key: that was shown for it, if one is needed.
        model: the name of what it shows.
        together: whether it may be computed in one call with others of its model and size.
    """

    seed: int
    height: int
    width: int
    fps: float
    pace: Pace
    grace_s: float
    lead_s: float
    buffer_chunks: int
    pause_s: float = math.inf
    address: str = ""
    is_clip: bool = False
    key: Key | None = None
    model: str = ""
    together: bool = True


@dataclass(frozen=True, eq=False)
class MadeChunk:
    """A finished chunk on its way to a viewer.

    Attributes:
        first_frame: index of its first frame in the stream.
        prompt_id: of the prompt it shows.
        made_at: Unix time in seconds.
    """

    chunk: Chunk
    first_frame: int
    prompt_id: int
    made_at: float

    @property
    def num_frames(self) -> int:
        return len(self.chunk.frames)

    def frame_fields(self, index: int, fps: float, dropped: int) -> FrameFields:
        """What viewers are told of the `index`-th frame of this chunk; `dropped` is the session's count."""
        frame = self.first_frame + index
        return FrameFields(
            chunk=self.chunk.index,
            frame=frame,
            pts_s=frame / fps,
            frames_in_chunk=self.num_frames,
            prompt_id=self.prompt_id,
            made_at=self.made_at,
            compute_ms=1e3 * self.chunk.timing.total,
            dropped=dropped,
            prompt_progress=self.chunk.progress,
        )
