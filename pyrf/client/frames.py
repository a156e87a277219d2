"""Frames of a session, as they come out of a message."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyrf.client.errors import BadArgumentError, BadReplyError
from pyrf.protocol import FrameHeader, unpack_frame


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a session.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        header: indices, time, prompt id, drops.
    """

    pixels: NDArray[np.uint8]
    header: FrameHeader

    def __repr__(self) -> str:
        return f"<Frame {self.header.frame}: {self.pixels.dtype} {list(self.pixels.shape)}>"


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A frame [H, W, 3] as a baseline JPEG.

    Raises:
        BadArgumentError: when it is no picture.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadArgumentError(f"a frame must be uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue()


def decode_frame(message: bytes) -> Frame:
    """The frame in a binary message.

    Raises:
        BadReplyError: when it is broken, or has not the size that its header says.
    """
    try:
        header, data = unpack_frame(message)
        shape = header.height, header.width, 3
        if header.format == "raw":
            if min(shape) < 1:
                raise ValueError(f"a frame of {header.height} x {header.width} pixels")
            return Frame(np.frombuffer(data, np.uint8).reshape(shape), header)
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if (image.height, image.width) != shape[:2]:
                raise ValueError(f"a picture of {image.height} x {image.width}, the header says {shape[:2]}")
            return Frame(np.asarray(image.convert("RGB")), header)
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise BadReplyError(f"the server sent a broken frame: {' '.join(str(error).split()):.200}") from error
