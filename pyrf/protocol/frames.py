"""Frames on the wire: where each stands, and the binary message that carries it."""

from __future__ import annotations

import struct
from typing import Annotated

from pydantic import Field

from pyrf.protocol.terms import FrameFormat, Reply

_LENGTH = struct.Struct(">I")


class FrameFields(Reply):
    """Where a frame stands, and how it was made.

    Attributes:
        chunk, frame: indices in the stream, from 0. Frames that were dropped leave a gap.
        pts_s: seconds from the stream's first frame to this one, frame / fps.
        frames_in_chunk: frames of this chunk; `chunk_frames` on the wire.
        prompt_id: of the prompt that the frame shows, or turns to.
        prompt_progress: how far it has turned to that prompt, 1 being wholly.
        made_at: when the chunk was finished, seconds of Unix time.
        compute_ms: what the chunk took the model.
        dropped: frames of the session dropped so far.
    """

    chunk: int
    frame: int
    pts_s: float
    frames_in_chunk: Annotated[int, Field(alias="chunk_frames")]
    prompt_id: int
    made_at: float
    compute_ms: float
    dropped: int
    prompt_progress: float = 1.0


class FrameHeader(FrameFields):
    """What stands before the pixels of a frame.

    Attributes:
        width, height: of the frame in pixels.
        format: jpeg, or raw: height * width * 3 bytes of RGB, row by row.
    """

    width: int
    height: int
    format: FrameFormat


def pack_frame(header: FrameHeader, pixels: bytes) -> bytes:
    """A binary message: the header's length (4 bytes, big-endian), the header as JSON, the pixels."""
    text = header.model_dump_json().encode()
    return b"".join((_LENGTH.pack(len(text)), text, pixels))


def unpack_frame(message: bytes) -> tuple[FrameHeader, memoryview]:
    """Inverse of `pack_frame`.

    Raises:
        ValueError: when the message is cut short or its header is no frame header.
    """
    if len(message) < _LENGTH.size:
        raise ValueError(f"a frame message has at least {_LENGTH.size} bytes, got {len(message)}")
    end = _LENGTH.size + _LENGTH.unpack_from(message)[0]
    if end > len(message):
        raise ValueError(f"a frame message of {len(message)} bytes names a header that ends at byte {end}")
    return FrameHeader.model_validate_json(message[_LENGTH.size : end]), memoryview(message)[end:]
