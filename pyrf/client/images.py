"""Images on their way to a server: files as they are, arrays and images of Pillow as PNG, in base64."""

from __future__ import annotations

import base64
import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from pyrf.client.errors import BadArgumentError
from pyrf.files import expanded

if TYPE_CHECKING:
    from PIL import Image

SentImage: TypeAlias = Union[bytes, str, PathLike[str], NDArray[Any], "Image.Image"]
"""A JPEG, PNG or WebP as bytes or a file, an array uint8 [H, W, 3], or an image of Pillow."""

MAX_FILE_BYTES = 64 * 2**20
"""Of a file; no server takes one as large."""


def in_base64(image: SentImage | None) -> str | None:
    """An image as a request carries it.

    Raises:
        BadArgumentError: when there is no such file, or the array has another form.
    """
    if image is None:
        return None
    return base64.b64encode(image if isinstance(image, bytes) else _file_of(image)).decode()


def _file_of(image: str | PathLike[str] | NDArray[Any] | Image.Image) -> bytes:
    from PIL import Image

    if isinstance(image, str | PathLike):
        try:
            path = Path(expanded(image))
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BadArgumentError(f"image: {image} has more than {MAX_FILE_BYTES} bytes; scale it first")
            return path.read_bytes()
        except OSError as error:
            raise BadArgumentError(f"image: cannot read {image}: {error.strerror or error}") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise BadArgumentError(
                f"image: an array must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
            )
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise BadArgumentError(
            f"image: must be bytes, a file, an array or an image of Pillow, got {image!r:.80}"
        )
    file = io.BytesIO()
    image.save(file, "PNG", exif=image.getexif())
    return file.getvalue()
