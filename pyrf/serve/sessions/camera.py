"""What a viewer's camera sends: pictures of bounded size and rate, of which the newest goes to the stream."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from pyrf.streaming.feeds import FeedClosedError, Newest
from pyrf.video.fitting import fitted
from pyrf.video.writer import Frames

MAX_SCANS = 8
"""Of a JPEG; each costs as much as a whole picture, and cameras write one or three."""
_SCAN = b"\xff\xda"


def decode_jpeg(data: bytes, height: int, width: int, max_pixels: int) -> Frames:
    """A stranger's JPEG, fitted to a size: uint8 [height, width, 3].

    Its header is looked at before anything is decoded.

    Raises:
        ValueError: when it is none, is too large, or costs too much to decode.
    """
    if data.count(_SCAN) > MAX_SCANS:
        raise ValueError(f"a source frame may have {MAX_SCANS} scans; save it as a baseline JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("JPEG",))
        with image:
            if image.width * image.height > max_pixels:
                raise _TooLargeError(
                    f"a source frame may have {max_pixels} pixels, got {image.width} x {image.height}"
                )
            if image.info.get("progressive"):
                raise _TooLargeError("a source frame is a progressive JPEG; save it as a baseline one")
            image.draft("RGB", (width, height))
            return fitted(image.convert("RGB"), 1.0, height, width, "crop")
    except _TooLargeError as error:
        raise ValueError(str(error)) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("a source frame must be a whole JPEG") from error


class _TooLargeError(Exception):
    """The picture is one that is not decoded."""


class Camera:
    """The source of a session's stream. It belongs to the event loop, and decodes in another thread.

    Of pictures that come faster than they are decoded only the newest is.

    Args:
        size: height and width of the stream's frames.
        fps: of the stream.
        longest: frames of its longest chunk.
        max_pixels: of a picture.
        decoder: the thread that decodes, shared by all sessions.
        refuse: told why a picture is not shown.

    Attributes:
        feed: what the stream takes; it waits for nothing once it is ready.
    """

    def __init__(
        self,
        size: tuple[int, int],
        fps: float,
        longest: int,
        max_pixels: int,
        decoder: ThreadPoolExecutor,
        refuse: Callable[[str], None],
    ) -> None:
        self._size, self._max_pixels, self._decoder, self._refuse = size, max_pixels, decoder, refuse
        self.feed = Newest(*size, fps, longest, waits=False)
        self._decoding: asyncio.Task[None] | None = None
        self._newest: bytes | None = None

    def show(self, jpeg: bytes) -> None:
        """Take a picture, in place of one that still waits."""
        self._newest = jpeg
        if self._decoding is None:
            self._decoding = asyncio.create_task(self._decode())

    async def _decode(self) -> None:
        while (jpeg := self._newest) is not None:
            self._newest = None
            try:
                await asyncio.get_running_loop().run_in_executor(self._decoder, self._put, jpeg)
            except ValueError as error:
                self._refuse(str(error))
            except (FeedClosedError, RuntimeError):  # it goes on without them, or the server ends
                break
        self._decoding = None

    def _put(self, jpeg: bytes) -> None:
        self.feed.put(decode_jpeg(jpeg, *self._size, self._max_pixels))
