"""Watchers: JPEGs in one reply, beside the viewer, read by httpx, by FFmpeg and by Chromium."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from pyrf.client import Client
from tests.support.browser import chromium, find_chromium
from tests.support.running import TIMEOUT, Running, read, read_frames

BOUNDARY = b"--pyrf-frame\r\n"


def watch(server: Running, created: dict[str, Any], stack: ExitStack) -> httpx.Response:
    address = f"{created['watch']}/frames.mjpeg"
    return stack.enter_context(server.http.stream("GET", address))


def jpegs(response: httpx.Response) -> Iterator[np.ndarray[Any, Any]]:
    """The pictures of a reply, parsed by their lengths."""
    data, pieces = b"", response.iter_bytes()
    while True:
        while b"\r\n\r\n" not in data:
            piece = next(pieces, None)
            if piece is None:
                return
            data += piece
            if data.startswith(b"--pyrf-frame--"):
                return
        head, data = data.split(b"\r\n\r\n", 1)
        assert head.startswith(BOUNDARY + b"Content-Type: image/jpeg\r\nContent-Length: ")
        length = int(head.rsplit(b" ", 1)[1])
        while len(data) < length + 2:
            data += next(pieces)
        with Image.open(io.BytesIO(data[:length])) as image:
            yield np.asarray(image.convert("RGB"))
        data = data[length + 2 :]


def as_jpeg(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a frame looks like in the server's quality."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=90)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def test_several_watch_what_the_viewer_sees(server: Running) -> None:
    created = server.create()
    with ExitStack() as stack:
        viewer = stack.enter_context(server.attach(created))
        read(viewer)
        seen = [jpegs(watch(server, created, stack)) for _ in range(3)]
        server.wait_until(lambda: len(server.session(created).watchers) == 3)
        firsts = [next(one) for one in seen]
        size = created["height"], created["width"], 3
        frames = [np.frombuffer(pixels, np.uint8).reshape(size) for _, pixels in read_frames(viewer, 60)]
        sent = [as_jpeg(frame) for frame in frames]
        assert all(any(np.array_equal(first, picture) for picture in sent) for first in firsts)
        assert server.session(created).viewer is not None
        server.delete(created)
        for one in seen:
            list(one)  # the reply ends with the session


def test_a_session_goes_on_for_its_watchers_alone(server: Running) -> None:
    created = server.create(pace="max", grace_s=0)
    with ExitStack() as stack:
        pictures = jpegs(watch(server, created, stack))
        for _ in range(40):
            assert next(pictures).shape == (created["height"], created["width"], 3)
        session = server.session(created)
        assert session.state == "running"
        assert session.frames_dropped == 0
    server.wait_until(lambda: server.session(created) is None)  # nobody watches, and its grace is over


def test_ffmpeg_reads_it(server: Running) -> None:
    created = server.create()
    with av.open(f"{server.url}{created['watch']}/frames.mjpeg", format="mpjpeg") as container:
        for number, frame in enumerate(container.decode(video=0)):
            assert (frame.height, frame.width) == (created["height"], created["width"])
            if number == 20:
                break
    server.delete(created)


@pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium")
def test_a_page_of_another_site_shows_it(server: Running) -> None:
    created = server.create()
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        page.set_content(f"<img src='{server.url}{created['watch']}/frames.mjpeg'>")
        page.wait_for_function("document.querySelector('img').naturalWidth > 0")
        assert page.evaluate("document.querySelector('img').naturalWidth") == created["width"]
    server.delete(created)


def test_the_key_to_watch_opens_nothing_else_and_is_not_logged(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    created = server.create()
    key = created["watch"].rsplit("/", 1)[1]
    with caplog.at_level(logging.INFO, "pyrf"):
        answers = [
            server.http.get(f"/v1/sessions/{created['id']}/watch/{'x' * 43}/frames.mjpeg"),
            server.http.get(f"/v1/sessions/{created['id']}/watch/{created['token']}/frames.mjpeg"),
            server.http.get(f"/v1/sessions/no/watch/{key}/frames.mjpeg"),
            server.http.get(f"/v1/sessions/{created['id']}", headers={"Authorization": f"Bearer {key}"}),
        ]
    assert [answer.status_code for answer in answers] == [404] * 4
    paths = [getattr(record, "path", "") for record in caplog.records]
    assert any("/watch/.../frames.mjpeg" in path for path in paths)
    assert not any(key in path or created["token"] in path for path in paths)
    head = server.http.head(f"{created['watch']}/frames.mjpeg")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("multipart/x-mixed-replace; boundary=")
    assert len(server.session(created).watchers) == 0
    server.delete(created)


def test_a_session_has_some_watchers_at_a_time(serve: Callable[..., Running]) -> None:
    server = serve(max_watchers=2)
    created = server.create()
    with ExitStack() as stack:
        for count in (1, 2):
            watch(server, created, stack)
            server.wait_until(lambda: len(server.session(created).watchers) == count)  # noqa: B023
        refused = watch(server, created, stack)
        assert refused.status_code == 429
        assert "2 watchers at a time" in refused.read().decode()


def test_a_watcher_that_never_reads_hinders_nobody(server: Running) -> None:
    created = server.create(pace="max")
    with ExitStack() as stack:
        watch(server, created, stack)
        server.wait_until(lambda: len(server.session(created).watchers) == 1)
        viewer = stack.enter_context(server.attach(created))
        frames = [header.frame for header, _ in read_frames(viewer, 300)]
        assert frames == list(range(frames[0], frames[0] + 300))
        (waiting,) = server.call(lambda: [*server.session(created).watchers._waiting.values()])
        assert len(waiting) <= server.settings.buffer_chunks
        server.delete(created)


def test_the_client_tells_the_address(server: Running) -> None:
    with Client(server.url) as client, client.create_session("a red circle") as session, ExitStack() as stack:
        response = stack.enter_context(httpx.stream("GET", session.watch_url, timeout=TIMEOUT))
        assert next(jpegs(response)).shape == (session.created.height, session.created.width, 3)
