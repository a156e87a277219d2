"""A session's video over WebRTC, to a peer in this process."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from pyrf.pipeline import Chunk, StreamingPipeline
from pyrf.protocol import MESSAGE, EndReason
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.session import Session
from pyrf.serve.transports.track import SessionTrack
from pyrf.streaming.chunk import Timing
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.running import BLUE, PROMPT, TIMEOUT, Running


class Peer:
    """What a browser does."""

    def __init__(self, sent: VideoStreamTrack | None = None) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if sent is None:
            self.connection.addTransceiver("video", direction="recvonly")
        else:
            self.connection.addTransceiver(sent, direction="sendrecv")
        self.channel = self.connection.createDataChannel("control")
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.channel.on("message", lambda text: self.messages.put_nowait(MESSAGE.validate_json(text)))
        self.track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.connection.on("track", self.track.set_result)

    async def offer(self, server: Running, created: dict[str, Any]) -> httpx.Response:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        description = self.connection.localDescription
        async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT) as http:
            response = await http.post(
                f"/v1/sessions/{created['id']}/webrtc",
                json={"sdp": description.sdp, "type": description.type},
                headers={"Authorization": f"Bearer {created['token']}"},
            )
        if response.is_success:
            await self.connection.setRemoteDescription(RTCSessionDescription(**response.json()))
        return response

    async def message(self, kind: str) -> Any:
        """The next message of a kind."""
        while True:
            message = await self.messages.get()
            if message.type == kind:
                return message


def run(coroutine: Any) -> None:
    asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


def test_a_peer_sees_the_video_and_controls_it(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=4)

    async def watch() -> None:
        peer = Peer()
        await peer.offer(server, created)
        track = await peer.track
        hello = await peer.message("hello")
        assert (hello.session.id, hello.format) == (created["id"], "video")
        chunk = await peer.message("chunk")
        assert (chunk.chunk, chunk.frame, chunk.frames_in_chunk, chunk.prompt_id) == (0, 0, 9, 0)
        received = [await track.recv() for _ in range(12)]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in received]).astype(int)
        assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
        assert all((a != b).any() for a, b in pairwise(frames))
        # Pixels are those of the stream, as far as the codec lets one see: the nearest frames are in order.
        expected = pipe(PROMPT, num_frames=21, seed=4).frames.astype(int)
        nearest = np.abs(frames[:, None] - expected).mean((2, 3, 4)).argmin(1)
        assert (np.diff(nearest) >= 0).all()
        assert nearest[-1] - nearest[0] >= 8
        assert np.diff([frame.time for frame in received]).min() > 0.06  # never faster than 16 a second
        peer.channel.send(json.dumps({"type": "prompt", "prompt": BLUE, "ref": 5}))
        peer.channel.send("nonsense")
        reply = await peer.message("prompt")
        assert (reply.ref, reply.prompt_id) == (5, 1)
        assert (await peer.message("error")).error.code == "invalid"
        while True:
            chunk = await peer.message("chunk")
            if chunk.prompt_id == 1:
                break
        assert chunk.chunk == reply.chunk
        peer.channel.send('{"type": "close"}')
        assert (await peer.message("closing")).reason == "closed"
        await peer.connection.close()

    run(watch())
    server.wait_until(lambda: not server.registry.live and not server.state.peers._peers)


def test_a_peer_that_leaves_detaches_and_may_return(server: Running) -> None:
    created = server.create(seed=4)
    session = server.session(created)

    async def watch() -> None:
        peer = Peer()
        await peer.offer(server, created)
        track = await peer.track
        await track.recv()
        await peer.connection.close()

    for _ in range(2):
        run(watch())
        server.wait_until(lambda: session.state == "detached")
    server.delete(created)


@pytest.mark.parametrize(
    "sdp", ["", "nonsense", "v=0\r\n", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video x\r\n"]
)
def test_bad_offers(server: Running, sdp: str) -> None:
    created = server.create()
    response = server.post(created, "/webrtc", sdp=sdp, type="offer")
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "bad_offer"
    server.wait_until(lambda: not server.state.peers._peers)
    server.delete(created)


@pytest.mark.parametrize("directions", [[], ["sendonly"], ["inactive"], ["inactive", "recvonly"]])
def test_an_offer_that_receives_no_video(server: Running, directions: list[str]) -> None:
    created = server.create()

    async def offer() -> None:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.createDataChannel("control")
        for direction in directions:
            connection.addTransceiver("video", direction=direction)
        await connection.setLocalDescription(await connection.createOffer())
        sdp = connection.localDescription.sdp
        response = await asyncio.to_thread(server.post, created, "/webrtc", sdp=sdp, type="offer")
        assert response.status_code == 422
        assert "no video" in response.json()["error"]["message"]
        await connection.close()

    run(offer())
    server.wait_until(lambda: not server.state.peers._peers)
    server.delete(created)


class Lime(VideoStreamTrack):
    """A video of one colour."""

    def __init__(self, height: int = 240, width: int = 320) -> None:
        super().__init__()
        self.pixels = np.full((height, width, 3), (60, 200, 60), np.uint8)

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(self.pixels, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def test_a_peer_that_sends_video_is_restyled_once_it_says_so(server: Running) -> None:
    """Before, nothing of it is decoded; what is decoded is bounded."""
    created = server.create()
    session = server.session(created)

    async def watch() -> None:
        peer = Peer(Lime())
        await peer.offer(server, created)
        assert [t.currentDirection for t in peer.connection.getTransceivers()] == ["sendrecv"]
        track = await peer.track
        for _ in range(3):
            await track.recv()
        incoming = next(iter(server.state.peers._peers))._incoming
        assert incoming._context is None
        peer.channel.send(json.dumps({"type": "source", "strength": 0.3}))
        assert (await peer.message("source")).strength == 0.3
        while not session.restyling.shows_camera:
            await track.recv()
        shown = session.restyling.camera.feed._kept[-1][1]
        assert np.abs(shown.astype(int).mean((0, 1)) - (60, 200, 60)).max() < 20
        peer.channel.send(json.dumps({"type": "source", "strength": None}))
        assert (await peer.message("source")).strength is None
        await peer.connection.close()

    run(watch())
    server.delete(created)


@pytest.mark.parametrize(
    ("reason", "left"), [("max_length", 6), ("shutdown", 6), ("failed", 6), ("closed", 0), ("replaced", 0)]
)
def test_what_is_left_is_shown_when_the_session_ends(reason: EndReason, left: int) -> None:
    async def watch() -> None:
        options = SessionOptions(0, HEIGHT, WIDTH, 1e4, "max", 0.0, 0.5, 2)
        session = Session(
            "",
            "",
            None,  # type: ignore[arg-type]  # its chunks are the test's
            options,
            changed=lambda: None,
            on_end=lambda *_: None,
        )
        for index in range(2):
            frames = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
            session.finish_chunk(Chunk(frames, index, PROMPT, Timing(0, 0, 0, 0, 0)), 1, 0, 0)
        sent: list[Any] = []
        track = SessionTrack(session, sent.append, lambda: None)
        for _ in range(2):
            await track.recv()
        assert session.viewer is not None
        session.viewer.end(reason)
        for _ in range(left):
            await track.recv()
        with pytest.raises(MediaStreamError):
            await track.recv()
        assert [message.type for message in sent] == ["chunk"] * (1 + (left > 4)) + ["closing"]
        track.leave()
        session.end("closed")

    run(watch())
