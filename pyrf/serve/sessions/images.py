"""Images that viewers send to start from: few formats, bounded before they are decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from pyrf.serve.errors import ServeError
from pyrf.serve.settings import ServeSettings
from pyrf.video.image import fitted_picture

if TYPE_CHECKING:
    from pyrf.config import Fit
    from pyrf.video.writer import Frames

FORMATS = ("JPEG", "PNG", "WEBP")


def decode_image(text: str, settings: ServeSettings, *, height: int, width: int, fit: Fit) -> Frames:
    """An image in base64 as a frame, uint8 [height, width, 3]; a large one takes a tenth of a second.

    Raises:
        ServeError: 422, when it is too large, no image of `FORMATS`, or has a size that `fit` refuses.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refusal("the image must be a file in base64") from None
    if len(data) > settings.max_image_bytes:
        raise _refusal(
            f"the image may have {settings.max_image_bytes} bytes, got {len(data)}; scale it first"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what is odd in a stranger's file
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > settings.max_image_pixels:
                    raise _refusal(
                        f"the image may have {settings.max_image_pixels} pixels, got {image.height} x "
                        f"{image.width}; scale it first"
                    )
                return fitted_picture(image, height=height, width=width, fit=fit)
    except ServeError:
        raise
    except UnidentifiedImageError:
        raise _refusal(f"the image must be a file of {', '.join(FORMATS)}") from None
    except ValueError as error:
        raise _refusal(str(error)) from None
    except Exception as error:  # Pillow's plugins raise anything on a damaged file
        raise _refusal(f"the image is damaged ({type(error).__name__})") from error


def _refusal(message: str) -> ServeError:
    return ServeError(422, "bad_image", message)
