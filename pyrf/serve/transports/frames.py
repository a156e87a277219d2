"""Chunks to frame messages: JPEG or raw RGB, encoded in threads that leave the event loop free."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyrf.protocol import FrameFormat, FrameHeader, pack_frame
from pyrf.serve.sessions.chunks import MadeChunk


class FrameEncoder:
    """Encodes chunks, a few at a time.

    Args:
        quality: of JPEG, 1..95.
    """

    THREADS = 2

    def __init__(self, quality: int) -> None:
        self._quality = quality
        self.executor = ThreadPoolExecutor(self.THREADS, thread_name_prefix="pyrf-encode")

    async def messages(self, made: MadeChunk, format: FrameFormat, fps: float, dropped: int) -> list[bytes]:
        """The binary messages of a chunk, one per frame."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, self._messages, made, format, fps, dropped)

    async def jpegs(self, made: MadeChunk) -> list[bytes]:
        """The frames of a chunk as files."""
        loop = asyncio.get_running_loop()
        frames = made.chunk.frames
        return await loop.run_in_executor(self.executor, lambda: [self._jpeg(pixels) for pixels in frames])

    def _messages(self, made: MadeChunk, format: FrameFormat, fps: float, dropped: int) -> list[bytes]:
        _, height, width, _ = made.chunk.frames.shape
        messages = []
        for i, pixels in enumerate(made.chunk.frames):
            fields = made.frame_fields(i, fps, dropped)
            header = FrameHeader(**vars(fields), width=width, height=height, format=format)
            messages.append(pack_frame(header, pixels.tobytes() if format == "raw" else self._jpeg(pixels)))
        return messages

    def _jpeg(self, pixels: NDArray[np.uint8]) -> bytes:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "JPEG", quality=self._quality)
        return data.getvalue()

    def close(self) -> None:
        self.executor.shutdown(wait=False)
