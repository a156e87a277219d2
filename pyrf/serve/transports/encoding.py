"""Video of a track, for a peer: of even quality, below a rate that the network carries.

aiortc's own encoders send at a fixed rate of 1.5 (VP8) or 3 Mbit/s (H.264) at most, whatever the frame's
size, and smooth the picture to get there.
"""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any, Literal

import av
from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import VIDEO_TIME_BASE, convert_timebase
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from pyrf.video.encoding import LOWEST, highest_rate

VideoCodec = Literal["H264", "VP8"]

HEADROOM = 0.85
"""Of what a peer says it can take; repeated packets and messages need the rest."""
RISE_S = 5.0
"""Seconds between two rises of the rate, as each begins with a whole picture."""
SMOOTHING = 0.1
"""Of a frame in the mean of what is sent."""
H264_QUALITY = {"preset": "superfast", "tune": "zerolatency", "crf": "18"}
VP8_QUALITY = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0", "crf": "6"}


class TrackEncoder(Encoder):
    """Encodes the frames of one track, in the thread that aiortc calls it from.

    A rate is a ceiling and no target: a plain picture takes less. The peer tells what it believes the network
    carries. That is no more than half above what it gets, so it lowers the ceiling only where it is less.

    Args:
        codec: what was agreed on.
        height, width: of a frame, even.
        fps: frames per second.
    """

    def __init__(self, codec: VideoCodec, height: int, width: int, fps: float) -> None:
        self._codec, self._size, self._fps = codec, (height, width), fps
        self._highest = self._ceiling = highest_rate(height, width, fps)
        self._sent = 0.0
        self._rose_at = time.monotonic()
        self._context: VideoCodecContext | None = None
        self._opened_for = 0
        self._picture_id = 0

    @property
    def target_bitrate(self) -> int:
        """The ceiling in bits per second; assign what the peer believes the network carries."""
        return self._ceiling

    @target_bitrate.setter
    def target_bitrate(self, estimate: int) -> None:
        now = time.monotonic()
        if estimate < HEADROOM * self._sent:
            self._ceiling = max(LOWEST, min(self._ceiling, round(HEADROOM * estimate)))
            self._rose_at = now
        elif HEADROOM * estimate > 1.1 * self._ceiling < self._highest and now > self._rose_at + RISE_S:
            self._ceiling = min(self._highest, round(HEADROOM * estimate))
            self._rose_at = now

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """The payloads of a frame's packets, and its RTP timestamp."""
        assert isinstance(frame, VideoFrame)
        assert frame.pts is not None
        assert frame.time_base is not None
        if self._context is None or self._opened_for != self._ceiling:
            self._opened_for = self._ceiling
            self._context = self._open(self._opened_for)
        timestamp = convert_timebase(frame.pts, frame.time_base, VIDEO_TIME_BASE)
        frame = frame.reformat(format="yuv420p")
        frame.pict_type = PictureType.I if force_keyframe else PictureType.NONE
        data = b"".join(bytes(packet) for packet in self._context.encode(frame))
        self._sent += SMOOTHING * (8 * len(data) * self._fps - self._sent)
        return self._payloads(data), timestamp

    def _payloads(self, data: bytes) -> list[bytes]:
        if self._codec == "H264":
            return H264Encoder._packetize(H264Encoder._split_bitstream(data))
        self._picture_id = (self._picture_id + 1) % 2**15
        return Vp8Encoder._packetize(data, self._picture_id)

    def _open(self, ceiling: int) -> VideoCodecContext:
        context = av.CodecContext.create("libx264" if self._codec == "H264" else "libvpx", "w")
        assert isinstance(context, VideoCodecContext)
        context.height, context.width = self._size
        context.pix_fmt = "yuv420p"
        context.time_base = VIDEO_TIME_BASE
        context.framerate = Fraction(self._fps).limit_denominator(1001)
        context.gop_size = 3000  # a peer that lost a whole picture asks for another
        context.thread_count = 1  # more of them wait by spinning
        limit = {"maxrate": str(ceiling), "bufsize": str(ceiling // 2)}
        if self._codec == "H264":
            context.profile = "Baseline"
            context.options = H264_QUALITY | limit
        else:
            context.bit_rate, context.qmin, context.qmax = ceiling, 2, 56
            context.options = VP8_QUALITY | limit
        return context

    def pack(self, packet: Any) -> tuple[list[bytes], int]:
        """Frames come as pictures only."""
        raise NotImplementedError
