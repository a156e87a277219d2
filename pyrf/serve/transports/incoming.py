"""A viewer's own video over WebRTC: decoded only while it is restyled, within bounds of our own."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import av
from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from pyrf.serve.sessions.rates import RateLimit
from pyrf.streaming.feeds import FeedClosedError, Newest

FRAMES_PER_S, FRAMES_AT_ONCE = 60, 120
"""Encoded frames that a peer may send; others are lost."""
MAX_WAITING = 8
"""Encoded frames that wait to be decoded; when there are more, all are lost, and a key frame is asked for."""
_DECODERS = {"VP8": "vp8", "H264": "h264"}
"""FFmpeg's own: unlike libvpx they look at a picture's size before they take memory for it."""


class IncomingVideo:
    """Decodes what a peer sends, in place of aiortc's own decoder, whose queues and pictures have no bounds.

    It belongs to the event loop.

    Args:
        feed: where pictures go now, None: they are not even decoded.
        max_pixels: of a picture.
        decoder: the thread that decodes, shared by all sessions.
    """

    def __init__(self, feed: Callable[[], Newest | None], max_pixels: int, decoder: Executor) -> None:
        self._feed, self._max_pixels, self._decoder = feed, max_pixels, decoder
        self._rate = RateLimit(FRAMES_PER_S, FRAMES_AT_ONCE)
        self._context: Any = None
        self._waiting: list[Future[None]] = []
        self._ends: queue.Queue[None] = queue.Queue()
        self._ask_for_key_frame: Callable[[], None] = lambda: None

    def guard(self, receiver: RTCRtpReceiver) -> None:
        """Take the place of a receiver's decoder, before it starts."""
        setattr(receiver, "_RTCRtpReceiver__decoder_queue", self)  # noqa: B010  # its name is mangled
        self._ask_for_key_frame = getattr(receiver, "_RTCRtpReceiver__decoder_error").set  # noqa: B009

    def get(self) -> None:
        """What aiortc's thread waits for: nothing but its end."""
        return self._ends.get()

    def put(self, task: tuple[RTCRtpCodecParameters, JitterFrame] | None) -> None:
        """Take an encoded frame; None: there are no more."""
        if task is None:
            self._ends.put(None)
            return
        feed = self._feed()
        if feed is None or self._rate.wait_for(""):
            self._context = None  # what comes later needs a key frame
            return
        self._waiting = [one for one in self._waiting if not one.done()]
        if len(self._waiting) >= MAX_WAITING:
            self._context = None
            self._ask_for_key_frame()
            return
        codec, encoded = task
        if self._context is None:
            self._context = av.CodecContext.create(_DECODERS[codec.name.upper()], "r")
            self._context.options = {"max_pixels": str(self._max_pixels)}
        self._waiting.append(self._decoder.submit(self._decode, self._context, encoded.data, feed))

    def _decode(self, context: Any, data: bytes, feed: Newest) -> None:
        try:
            for frame in context.decode(av.Packet(data)):
                feed.put(frame.to_ndarray(format="rgb24"))
        except (av.error.FFmpegError, MemoryError):
            self._ask_for_key_frame()
        except (FeedClosedError, ValueError):
            pass  # the stream goes on without it, or what was sent is none of what is read
