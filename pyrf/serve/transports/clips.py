"""`POST /v1/videos`: a clip as fragmented MP4, sent while it is made."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pyrf.protocol import WARNINGS_HEADER
from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.session import Session
from pyrf.serve.transports.kept import Keeping, KeptClips
from pyrf.video.encoder import Encoder
from pyrf.video.encoding import LIVE_MP4
from pyrf.video.metadata import Metadata
from pyrf.video.writer import Frames


class _Pipe(io.RawIOBase):
    """What the muxer writes, to be taken in pieces; it cannot seek, so the muxer never looks back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


class FragmentedMp4:
    """Encodes frames to pieces of an MP4 that plays while it is still growing: a fragment a call.

    Args:
        height, width: of a frame, even.
        fps: frames a second.
        metadata: what the clip says of how it was made.
        rate: bits per second that it has at most; None: as many as its quality takes.
    """

    def __init__(
        self,
        height: int,
        width: int,
        fps: float,
        metadata: Metadata | None = None,
        *,
        rate: int | None = None,
    ) -> None:
        self._pipe = _Pipe()
        encoding = LIVE_MP4
        if rate is not None:
            limit = {"maxrate": str(rate), "bufsize": str(rate)}
            encoding = replace(encoding, codec_options={**encoding.codec_options, **limit})
        self._encoder = Encoder(self._pipe, encoding, height=height, width=width, fps=fps, metadata=metadata)

    def encode(self, frames: Frames) -> bytes:
        """Append frames [T, H, W, 3], the first of them a key frame."""
        for i, frame in enumerate(frames):
            self._encoder.append(frame, is_key=i == 0)
        return self._pipe.take()

    def finish(self) -> bytes:
        """End the clip."""
        self._encoder.finish()
        return self._pipe.take()


async def stream_clip(
    session: Session, num_frames: int, executor: Executor, metadata: Metadata, kept: KeptClips, copy: Keeping
) -> AsyncGenerator[bytes]:
    """The pieces of a clip of `num_frames` frames; the session ends with it, or when it is not wanted.

    Args:
        metadata: what the clip says of how it was made.
        kept, copy: where it is kept, once it is whole.

    Raises:
        ServeError: 503 when the session ended before the clip was whole; 500 when the model's values are not
            finite.
    """
    loop = asyncio.get_running_loop()
    viewer = session.attach("clip")
    o = session.options
    try:
        encoder = await loop.run_in_executor(executor, FragmentedMp4, o.height, o.width, o.fps, metadata)
        missing = num_frames
        while missing > 0:
            item = await viewer.next()
            if item is None:
                closing = viewer.closing_message()
                if closing.reason == "not_finite":
                    raise ServeError(500, "not_finite", closing.message)
                raise ServeError(503, "interrupted", closing.message, 1.0)
            if isinstance(item, MadeChunk):
                frames = item.chunk.frames[:missing]
                missing -= len(frames)
                piece = await loop.run_in_executor(executor, encoder.encode, frames)
                await kept.add(copy, piece)
                yield piece
        piece = await loop.run_in_executor(executor, encoder.finish)
        await kept.add(copy, piece)
        kept.finish(copy)
        yield piece
    finally:
        if not copy.whole:
            kept.drop(copy)
        session.end("closed")
        session.detach(viewer)


class ClipResponse(StreamingResponse):
    """Sends the pieces of a clip; whatever becomes of the connection, the clip's session ends with it.

    Args:
        first, rest: the pieces.
        place: where the clip is to be had again.
        warnings: on the prompt or the size, which go into a header as a JSON list.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes], place: str, warnings: list[str]) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield first
            async for piece in rest:
                yield piece

        headers = {"Content-Location": place}
        if warnings:
            headers[WARNINGS_HEADER] = json.dumps(warnings)
        super().__init__(pieces(), media_type="video/mp4", headers=headers)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()
