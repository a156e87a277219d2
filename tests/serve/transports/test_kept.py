"""Finished clips, asked for again."""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import httpx

from tests.support.running import PROMPT, Running


def make(server: Running, num_frames: int = 21) -> httpx.Response:
    response = server.http.post("/v1/videos", json={"prompt": PROMPT, "num_frames": num_frames})
    assert response.status_code == 200, response.text
    return response


def test_a_clip_is_had_again_whole_and_in_parts(server: Running) -> None:
    made = make(server)
    place, data = made.headers["content-location"], made.content
    again = server.http.get(place)
    assert (again.status_code, again.content) == (200, data)
    assert (again.headers["content-type"], again.headers["accept-ranges"]) == ("video/mp4", "bytes")
    head = server.http.head(place)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(data)
    for asked, start, end in (
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, len(data)),
        ("bytes=-50", len(data) - 50, len(data)),
    ):
        part = server.http.get(place, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert server.http.get(place, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    assert server.http.get(f"{place}x").status_code == 404
    with av.open(io.BytesIO(data), mode="r") as container:
        assert len(list(container.decode(video=0))) == 21


def test_ffmpeg_seeks_in_it(server: Running) -> None:
    """A player that asks for parts over HTTP, as it needs them."""
    place = make(server, 93).headers["content-location"]
    with av.open(f"{server.url}{place}", mode="r", options={"seekable": "1"}) as container:
        container.seek(4_000_000)
        frame = next(container.decode(video=0))
        assert frame.time is not None
        assert frame.time > 3


def test_a_clip_goes_after_its_time(serve: Callable[..., Running]) -> None:
    server = serve(keep_clips_s=0.2)
    place = make(server).headers["content-location"]
    server.wait_until(lambda: not server.state.clips._clips)
    assert server.http.get(place).status_code == 404


def test_old_clips_make_room_and_a_large_one_is_not_kept(serve: Callable[..., Running]) -> None:
    size = len(make(serve()).content)
    server = serve(max_kept_bytes=2 * size + 10)
    places = [make(server).headers["content-location"] for _ in range(3)]
    assert [server.http.get(place).status_code for place in places] == [404, 200, 200]
    large = make(server, 200)
    assert len(large.content) > 2 * size + 10
    assert server.http.get(large.headers["content-location"]).status_code == 404
    assert server.call(lambda: server.state.clips._clips) == {}


def test_a_clip_that_nobody_waited_for_is_not_kept(server: Running) -> None:
    before = server.call(lambda: len(server.state.clips._clips))
    body = {"prompt": PROMPT, "num_frames": 900}
    with server.http.stream("POST", "/v1/videos", json=body) as response:
        next(response.iter_raw())
        place = response.headers["content-location"]
        assert server.http.get(place).status_code == 404  # not yet
    server.wait_until(lambda: len(server.state.clips._clips) == before)
