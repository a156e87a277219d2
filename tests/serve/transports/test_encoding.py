"""The encoder of WebRTC video: its quality beside JPEG's, its rate, and whole pictures on demand."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import depayload, get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from av import VideoFrame

from pyrf.protocol import Offer
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.session import Session
from pyrf.serve.settings import ServeSettings
from pyrf.serve.transports import encoding
from pyrf.serve.transports.encoding import TrackEncoder, VideoCodec
from pyrf.serve.transports.track import CLOCK_RATE
from pyrf.serve.transports.webrtc import Peers
from pyrf.streaming.chunk import Chunk, Timing
from pyrf.video.encoding import HIGHEST, LOWEST, highest_rate
from pyrf.video.writer import Frames
from tests.support.moving_texture import jpeg_psnr, moving_texture, psnr
from tests.support.running import PROMPT, TIMEOUT

HEIGHT, WIDTH, FPS = 480, 832, 16.0
CODECS: tuple[VideoCodec, ...] = ("H264", "VP8")


@pytest.fixture(scope="module")
def video() -> Frames:
    return moving_texture(16)


def encode(encoder: TrackEncoder, frames: Frames, start: int = 0) -> list[list[bytes]]:
    """The payloads of each frame."""
    sent = []
    for t, pixels in enumerate(frames, start):
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = int(t * CLOCK_RATE / FPS), VIDEO_TIME_BASE
        payloads, timestamp = encoder.encode(frame)
        assert timestamp == frame.pts
        assert all(0 < len(payload) <= 1300 for payload in payloads)
        sent.append(payloads)
    return sent


def decode(codec: VideoCodec, sent: list[list[bytes]]) -> Frames:
    """What a viewer sees."""
    kind = RTCRtpCodecParameters(mimeType=f"video/{codec}", clockRate=90000, payloadType=99)
    decoder = get_decoder(kind)
    seen: list[Any] = []
    for t, payloads in enumerate(sent):
        data = b"".join(depayload(kind, payload) for payload in payloads)
        seen += decoder.decode(JitterFrame(data=data, timestamp=t))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in seen])


@pytest.mark.parametrize(("codec", "below"), [("H264", 1.0), ("VP8", 2.0)])
def test_the_picture_is_nearly_that_of_jpeg(codec: VideoCodec, below: float, video: Frames) -> None:
    sent = encode(TrackEncoder(codec, HEIGHT, WIDTH, FPS), video)
    seen = decode(codec, sent)
    assert len(seen) == len(video)
    quality = np.mean([psnr(a, b) for a, b in zip(video, seen)])
    jpeg = np.mean([jpeg_psnr(frame, ServeSettings().jpeg_quality) for frame in video])
    assert quality > jpeg - below, f"{quality:.1f} dB, JPEG {jpeg:.1f} dB"
    rate = 8 * sum(len(payload) for payloads in sent for payload in payloads) * FPS / len(video)
    assert rate < 1.2 * highest_rate(HEIGHT, WIDTH, FPS)


@pytest.mark.parametrize("codec", CODECS)
def test_a_whole_picture_can_be_asked_for(codec: VideoCodec, video: Frames) -> None:
    """A viewer that lost packets goes on from there, with nothing of before."""
    encoder = TrackEncoder(codec, HEIGHT, WIDTH, FPS)
    encode(encoder, video[:3])
    frame = VideoFrame.from_ndarray(video[3], format="rgb24")
    frame.pts, frame.time_base = 3 * 5625, VIDEO_TIME_BASE
    whole, _ = encoder.encode(frame, force_keyframe=True)
    rest = encode(encoder, video[4:6], start=4)
    seen = decode(codec, [whole, *rest])
    assert [psnr(a, b) > 27 for a, b in zip(video[3:6], seen)] == [True] * 3
    assert len(b"".join(whole)) > 2 * len(b"".join(rest[0]))


@pytest.mark.parametrize("codec", CODECS)
def test_the_rate_follows_the_network_down_and_up(
    codec: VideoCodec, video: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(encoding, "time", SimpleNamespace(monotonic=lambda: now))
    encoder = TrackEncoder(codec, HEIGHT, WIDTH, FPS)
    most = highest_rate(HEIGHT, WIDTH, FPS)
    assert encoder.target_bitrate == most
    encode(encoder, video[:8])
    encoder.target_bitrate = most  # more than is sent: nothing to do
    assert encoder.target_bitrate == most
    encoder.target_bitrate = 600_000
    assert encoder.target_bitrate == round(0.85 * 600_000) or encoder.target_bitrate == LOWEST
    narrow = encoder.target_bitrate
    sent = encode(encoder, np.concatenate([video] * 2), start=8)
    later = sent[8:]  # the first is a whole picture
    rate = 8 * sum(len(payload) for payloads in later for payload in payloads) * FPS / len(later)
    assert rate < 1.5 * narrow
    encoder.target_bitrate = 10 * most
    assert encoder.target_bitrate == narrow  # not so soon: each rise costs a whole picture
    now += encoding.RISE_S + 1
    encoder.target_bitrate = 10 * most
    assert encoder.target_bitrate == most
    encoder.target_bitrate = 0
    assert encoder.target_bitrate >= LOWEST


@pytest.mark.parametrize(
    ("height", "width", "rate"),
    [(480, 832, 5_111_808), (64, 96, LOWEST), (2160, 3840, HIGHEST)],
)
def test_the_highest_rate_follows_the_frame(height: int, width: int, rate: int) -> None:
    assert highest_rate(height, width, FPS) == rate


@pytest.mark.parametrize("codec", CODECS)
def test_a_plain_picture_takes_less(codec: VideoCodec) -> None:
    plain = np.full((24, HEIGHT, WIDTH, 3), 90, np.uint8)
    sent = encode(TrackEncoder(codec, HEIGHT, WIDTH, FPS), plain)[8:]
    assert sum(len(payload) for payloads in sent for payload in payloads) * 8 * FPS / len(sent) < 200_000


@pytest.mark.parametrize("codec", CODECS)
def test_a_viewer_sees_it(codec: VideoCodec, video: Frames) -> None:
    """Over a real connection, with the receiver's own estimate of the rate."""
    registry = cast(Any, SimpleNamespace(settings=ServeSettings(), sources=SimpleNamespace(decoder=None)))

    async def watch() -> None:
        options = SessionOptions(0, HEIGHT, WIDTH, FPS, "max", 0.0, 0.5, 2)
        session = Session("", "", cast(Any, None), options, changed=lambda: None, on_end=lambda *_: None)
        session.chunks_started = 1
        for index, frames in enumerate((video[:8], video[8:])):
            session.finish_chunk(Chunk(frames, index, PROMPT, Timing(0, 0, 0, 0, 0)), 1, 0, 0)
        peers = Peers(registry)
        viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = viewer.addTransceiver("video", direction="recvonly")
        known = RTCRtpReceiver.getCapabilities("video")
        assert known is not None
        transceiver.setCodecPreferences([one for one in known.codecs if one.name == codec])
        await viewer.setLocalDescription(await viewer.createOffer())
        answer = await peers.answer(session, Offer(sdp=viewer.localDescription.sdp), "", "127.0.0.1")
        assert f" {codec}/90000" in answer.sdp
        await viewer.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        seen = [await transceiver.receiver.track.recv() for _ in range(10)]
        pixels: list[Any] = [cast(VideoFrame, frame).to_ndarray(format="rgb24") for frame in seen]
        jpeg = np.mean([jpeg_psnr(frame, 90) for frame in video])
        best = [max(psnr(frame, one) for frame in video) for one in pixels]
        assert np.mean(best) > jpeg - 2.0, f"{np.mean(best):.1f} dB, JPEG {jpeg:.1f} dB"
        await viewer.close()
        await peers.close()
        session.end("closed")

    asyncio.run(asyncio.wait_for(watch(), TIMEOUT))
