"""HLS of a running session, read by FFmpeg, by its own rules, and by a player that no one here wrote."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from pyrf.serve.transports import hls, playlists
from tests.support.browser import find_chromium
from tests.support.npm import HLS_JS, player
from tests.support.running import Running, read_frames


def load(server: Running, created: dict[str, Any], name: str = hls.PLAYLIST) -> httpx.Response:
    return server.http.get(f"{created['watch']}/hls/{name}")


def named(text: str) -> dict[str, float]:
    """The segments of a playlist, and their seconds."""
    return {name: float(seconds) for seconds, name in re.findall(r"#EXTINF:([\d.]+),\n(.+)\n", text)}


def test_ffmpeg_plays_it_beside_the_viewer(server: Running) -> None:
    created = server.create()
    with server.attach(created) as viewer:
        read_frames(viewer, 1)
        with av.open(f"{server.url}{created['watch']}/hls/{hls.PLAYLIST}") as container:
            times = []
            for frame in container.decode(video=0):
                assert (frame.height, frame.width) == (created["height"], created["width"])
                times.append(frame.time)
                if len(times) == 48:
                    break
        assert all(b - a == pytest.approx(1 / created["fps"], abs=1e-3) for a, b in pairwise(times))
        assert server.session(created).viewer is not None
        assert len(server.session(created).watchers) == 1
    server.delete(created)


def test_the_playlist_keeps_its_rules_to_the_end(server: Running) -> None:
    """RFC 8216: segments stay the same, begin with a key frame, and are no longer than was said."""
    created = server.create()
    answered = load(server, created)
    assert answered.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert answered.headers["cross-origin-resource-policy"] == "cross-origin"
    longest = int(re.search(r"#EXT-X-TARGETDURATION:(\d+)\n", answered.text)[1])  # type: ignore[index]
    init = load(server, created, "init.mp4").content
    playlist = server.state.playlists._live[created["id"]]
    server.wait_until(lambda: len(playlist.segments) >= 2)
    server.delete(created)
    server.wait_until(lambda: "ENDLIST" in playlist.text())
    text = load(server, created).text  # the session is gone, and its end is told
    assert text.endswith("#EXT-X-ENDLIST\n")
    assert f"#EXT-X-TARGETDURATION:{longest}\n" in text
    segments = named(text)
    assert list(segments) == [f"{number}.m4s" for number in range(len(segments))]
    assert all(round(seconds) <= longest for seconds in segments.values())
    begun = 0.0
    for name, seconds in segments.items():
        with av.open(io.BytesIO(init + load(server, created, name).content), "r") as container:
            frames = list(container.decode(video=0))
        assert frames[0].key_frame
        assert len(frames) == round(seconds * created["fps"])
        assert frames[0].time == pytest.approx(begun, abs=1e-3)
        begun += seconds
    server.call(playlist.close)
    assert load(server, created).status_code == 404


def test_memory_is_bounded_and_old_segments_go(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playlists, "SEGMENT_S", 0.1)
    created = server.create()
    assert load(server, created).status_code == 200
    playlist = server.state.playlists._live[created["id"]]
    server.wait_until(lambda: playlist.segments[-1].number >= playlists.KEPT + 1)
    text = load(server, created).text
    assert len(named(text)) == playlists.LISTED
    assert len(playlist.segments) == playlists.KEPT
    assert load(server, created, next(iter(named(text)))).status_code == 200
    gone = load(server, created, "0.m4s")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    server.delete(created)


def test_nobody_asks_any_more(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    created = server.create(grace_s=0)
    assert load(server, created).status_code == 200
    monkeypatch.setattr(playlists, "IDLE_S", 0.1)
    load(server, created, "init.mp4")
    server.wait_until(lambda: server.session(created) is None)
    assert load(server, created).status_code == 404


def test_all_players_are_one_watcher(serve: Callable[..., Running]) -> None:
    server = serve(max_watchers=1)
    created, other = server.create(), server.create()
    assert [load(server, created).status_code for _ in range(3)] == [200] * 3
    assert server.http.get(f"{created['watch']}/frames.mjpeg").status_code == 429
    with server.http.stream("GET", f"{other['watch']}/frames.mjpeg"):
        server.wait_until(lambda: len(server.session(other).watchers) == 1)
        assert load(server, other).status_code == 429
    for session in (created, other):
        server.delete(session)


def test_who_may_play_what(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls, "FIRST_S", 0.1)
    created, other = server.create(), server.create()
    assert load(server, created, "init.mp4").status_code == 404
    assert len(server.session(created).watchers) == 0
    server.post(created, "/pause")
    waits = load(server, created)
    assert (waits.status_code, waits.json()["error"]["code"]) == (503, "preparing")
    wrong = created["watch"].rsplit("/", 1)[0] + "/" + other["watch"].rsplit("/", 1)[1]
    for name in ("live.m3u8", "init.mp4", "0.m4s"):
        assert server.http.get(f"{wrong}/hls/{name}").status_code == 404
    for name in ("other.m3u8", "-1.m4s", "0.m4s", "init.mp4"):
        assert load(server, created, name).status_code == 404
    for session in (created, other):
        server.delete(session)


PLAYER = """<!doctype html><video muted autoplay></video><script src="./dist/hls.js"></script><script>
const start = (url) => {
  const hls = new Hls();
  window.problems = [];
  hls.on(Hls.Events.ERROR, (_, { fatal, details }) => fatal && problems.push(details));
  hls.loadSource(url);
  hls.attachMedia(document.querySelector("video"));
};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium")
def test_a_player_from_npm_plays_it(serve: Callable[..., Running], tmp_path: Path) -> None:
    """`hls.js` in Chromium, on a page of another origin, to the end of the session."""
    with player(HLS_JS, PLAYER, tmp_path) as (page, origin):
        server = serve(origins=(origin,))
        created = server.create()
        page.goto(f"{origin}/player.html")
        page.evaluate("(url) => start(url)", f"{server.url}{created['watch']}/hls/{hls.PLAYLIST}")
        page.wait_for_function("document.querySelector('video').currentTime > 3")
        assert page.evaluate("document.querySelector('video').videoWidth") == created["width"]
        server.delete(created)
        page.wait_for_function("document.querySelector('video').ended")
        assert page.evaluate("problems") == []
