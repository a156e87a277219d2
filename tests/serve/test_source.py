"""A viewer's own video, sent as JPEGs over the WebSocket, is restyled; what it may send is bounded."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection

from pyrf.client import Client
from pyrf.serve.sessions.camera import Camera, decode_jpeg
from pyrf.video.writer import Frames
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.running import Running, read_frames, read_until


def picture(level: int = 200, height: int = HEIGHT, width: int = WIDTH) -> Frames:
    frame = np.full((height, width, 3), 40, np.uint8)
    frame[:, : width // 2] = level
    return frame


def jpeg(frame: Frames | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture() if frame is None else frame).save(file, "JPEG", **{"quality": 95, **options})
    return file.getvalue()


def source(strength: float | None, ref: int = 1) -> str:
    return json.dumps({"type": "source", "strength": strength, "ref": ref})


def test_frames_of_a_viewer_are_restyled_and_let_go(server: Running) -> None:
    """At strength 0 a picture that stands still makes a stream that does: no noise is left in it."""

    def restlessness(viewer: ClientConnection) -> float:
        """Levels between frames and those a chunk later, the mean."""
        frames = [np.frombuffer(data, np.uint8).astype(int) for _, data in read_frames(viewer, 24)]
        return float(np.mean([np.abs(a - b).mean() for a, b in zip(frames, frames[12:])]))

    created = server.create()
    with server.attach(created) as viewer:
        viewer.send(source(0))
        reply = read_until(viewer, "source")
        assert (reply.strength, reply.ref) == (0, 1)
        assert server.call(server.session(created).info).strength == 0
        viewer.send(jpeg())
        session = server.session(created)
        server.wait_until(lambda: session.restyling.camera.feed.ready)
        server.wait_until(lambda: session.restyling.shows_camera)
        chunk = session.chunks_started + 4  # the decoder remembers those before
        while read_frames(viewer, 1)[0][0].chunk < chunk:
            pass
        assert restlessness(viewer) < 1
        viewer.send(source(None, 2))
        assert read_until(viewer, "source").strength is None
        server.wait_until(lambda: not session.restyling.shows_camera)
        assert session.stream._source.current[0] is None
        chunk = session.chunks_started + 1
        while read_frames(viewer, 1)[0][0].chunk < chunk:
            pass
        assert restlessness(viewer) > 4
    server.delete(created)


def test_the_source_goes_with_its_viewer(server: Running) -> None:
    created = server.create()
    with server.attach(created) as viewer:
        viewer.send(source(0.5))
        read_until(viewer, "source")
    session = server.session(created)
    server.wait_until(lambda: session.viewer is None)
    assert server.call(session.info).strength is None
    with server.attach(created) as first:
        first.send(source(0.5))
        read_until(first, "source")
        with server.attach(created) as second:
            assert read_until(second, "hello").session.strength is None
    server.delete(created)


def test_frames_come_after_a_source_message(server: Running) -> None:
    created = server.create()
    with server.attach(created) as viewer:
        viewer.send(jpeg())
        error = read_until(viewer, "error").error
        assert (error.code, "first" in error.message) == ("bad_frame", True)
        viewer.send(source(2))
        assert read_until(viewer, "error").error.code == "invalid"
    server.delete(created)


def huge() -> bytes:
    """A header of 5,000 x 5,000 pixels, and few of them."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (5000).to_bytes(2, "big") * 2
    return bytes(data)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "no picture": (lambda: b"nothing of the kind", "must be a whole JPEG"),
    "cut short": (lambda: jpeg(picture(height=200, width=300))[:1200], "must be a whole JPEG"),
    "a bomb": (huge, "may have 2100000 pixels, got 5000 x 5000"),
    "PNG": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "must be a whole JPEG"),
    "progressive": (lambda: jpeg(progressive=True), "baseline"),
    "many scans": (lambda: jpeg() + b"\xff\xda" * 9, "8 scans"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_refused_before_it_costs_anything(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        decode_jpeg(make(), HEIGHT, WIDTH, 2_100_000)


def test_a_good_picture_is_fitted() -> None:
    shown = decode_jpeg(jpeg(picture(height=4 * HEIGHT, width=4 * WIDTH)), HEIGHT, WIDTH, 2_100_000)
    assert np.abs(shown.astype(int) - picture()).mean() < 3


def test_bad_frames_are_told_and_the_stream_goes_on(serve: Callable[..., Running]) -> None:
    server = serve(max_source_bytes=2000)
    created = server.create()
    with server.attach(created) as viewer:
        viewer.send(source(0.5))
        read_until(viewer, "source")
        viewer.send(b"nothing of the kind")
        assert "whole JPEG" in read_until(viewer, "error").error.message
        viewer.send(bytes(2001))
        assert "may have 2000 bytes, got 2001" in read_until(viewer, "error").error.message
        assert len(read_frames(viewer, 12)) == 12


def test_frames_that_come_too_fast_are_lost(serve: Callable[..., Running]) -> None:
    server = serve(source_frames_per_second=0.01)
    created = server.create()
    with server.attach(created) as viewer:
        viewer.send(source(0.5))
        read_until(viewer, "source")
        for _ in range(5):
            viewer.send(b"nothing of the kind")  # each that is looked at is refused
        viewer.send(source(None))
        errors = 0
        while True:
            message = viewer.recv(60)
            if isinstance(message, str):
                kind = json.loads(message)["type"]
                errors += kind == "error"
                if kind == "source":
                    break
        assert errors == 1


def test_the_python_client_sends_frames(server: Running) -> None:
    with Client(server.url) as client, client.create_session("a red circle") as session:
        limits = client.server_info().limits
        assert limits.max_source_bytes == server.settings.max_source_bytes
        session.set_source(0.0)
        session.send_frame(picture())
        own = server.registry.live.get(session.created.id)
        for frame in session:
            if own.restyling.shows_camera:
                assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
                break
        session.set_source(0.3, follow_motion=True)
        server.wait_until(lambda: own.stream.follow_motion)
        assert own.stream.strength == 0.3
        session.set_source(None)
        with pytest.raises(ValueError, match=r"strength must lie in 0\.\.1"):
            session.set_source(3)
        with pytest.raises(ValueError, match="a frame must be uint8"):
            session.send_frame(np.zeros((3, 3), np.uint8))


def test_of_pictures_that_wait_only_the_newest_is_decoded() -> None:
    """While one is decoded, in the thread that all sessions share."""

    async def run() -> list[int]:
        refused: list[str] = []
        release = threading.Event()
        with ThreadPoolExecutor(1) as decoder:
            decoder.submit(release.wait)  # another session's picture
            camera = Camera((HEIGHT, WIDTH), 16.0, 12, 10**6, decoder, refused.append)
            camera.show(jpeg(picture(10)))
            await asyncio.sleep(0)
            for level in (60, 120, 180, 250):
                camera.show(jpeg(picture(level)))
            release.set()
            assert camera._decoding is not None
            await camera._decoding
        assert refused == []
        return [int(frame[HEIGHT // 2, 2, 0]) for _, frame in camera.feed._kept]

    first, newest = asyncio.run(run())
    assert (abs(first - 10) < 6, abs(newest - 250) < 6) == (True, True)
