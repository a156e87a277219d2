"""What a WebRTC peer sends to be restyled costs a bounded amount of memory and time."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="WebRTC comes with the serve extra")

from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from pyrf.serve.transports.incoming import MAX_WAITING, IncomingVideo
from pyrf.streaming.feeds import Newest

ENCODERS = {"VP8": "libvpx", "H264": "libx264"}


def encoded(codec: str, height: int, width: int) -> bytes:
    """A key frame."""
    context: Any = av.CodecContext.create(ENCODERS[codec], "w")
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    context.time_base = Fraction(1, 30)
    pixels = np.full((height, width, 3), (60, 200, 60), np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def task(codec: str, data: bytes) -> tuple[RTCRtpCodecParameters, JitterFrame]:
    parameters = RTCRtpCodecParameters(mimeType=f"video/{codec}", clockRate=90000, payloadType=96)
    return parameters, JitterFrame(data=data, timestamp=0)


@pytest.mark.parametrize("codec", ENCODERS)
def test_pictures_are_shown_unless_they_are_too_large(codec: str) -> None:
    feed = Newest(32, 48, 16.0, 12, waits=False)
    with ThreadPoolExecutor(1) as decoder:
        incoming = IncomingVideo(lambda: feed, 320 * 240, decoder)
        asked: list[int] = []
        incoming._ask_for_key_frame = lambda: asked.append(1)
        incoming.put(task(codec, encoded(codec, 480, 640)))
        decoder.submit(int).result()
        assert not feed.ready
        incoming._context = None
        incoming.put(task(codec, encoded(codec, 240, 320)))
        for _ in range(3):  # H.264 comes out a frame later
            incoming.put(task(codec, encoded(codec, 240, 320)))
        decoder.submit(int).result()
    assert feed.ready
    assert feed._kept[-1][1].shape == (32, 48, 3)
    assert asked or codec == "H264"


def test_frames_that_cannot_be_decoded_in_time_are_lost() -> None:
    class Never(Executor):
        given = 0

        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            self.given += 1
            return Future()

    decoder, feed = Never(), Newest(32, 48, 16.0, 12, waits=False)
    incoming = IncomingVideo(lambda: feed, 10**6, decoder)
    data = encoded("VP8", 32, 48)
    for _ in range(3 * MAX_WAITING):
        incoming.put(task("VP8", data))
    assert decoder.given == MAX_WAITING


def test_nothing_is_decoded_for_nobody_and_its_end_is_told() -> None:
    with ThreadPoolExecutor(1) as decoder:
        incoming = IncomingVideo(lambda: None, 10**6, decoder)
        incoming.put(task("VP8", b"nothing of the kind"))
        assert incoming._context is None
        incoming.put(None)
        incoming.get()  # returns, as aiortc's thread is to end
