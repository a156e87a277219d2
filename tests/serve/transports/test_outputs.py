"""Sessions that the server sends on: to real receivers, into files, and nowhere else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pyrf.client import Client
from pyrf.serve.settings import ServeSettings
from pyrf.serve.transports import outputs
from pyrf.video.writer import Frames
from tests.support.receivers import free_port, rtmp_server
from tests.support.running import TIMEOUT, Running, read_frames


def begin(server: Running, created: dict[str, Any], target: str) -> Any:
    return server.post(created, "/outputs", target=target)


def refused(server: Running, created: dict[str, Any], target: str) -> tuple[int, str]:
    response = begin(server, created, target)
    return response.status_code, response.json()["error"]["code"]


def own(server: Running, created: dict[str, Any]) -> list[outputs.Output]:
    return server.state.outputs._of[created["id"]]


def frames_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def luma(frames: list[Any]) -> Any:
    """Of BT.709, [T, H, W]."""
    return np.stack(frames[:40]) @ np.array([0.2126, 0.7152, 0.0722])


def test_rtmp_and_a_file_get_what_the_viewer_sees(serve: Callable[..., Running], tmp_path: Path) -> None:
    port = free_port()
    files, received = tmp_path / "files", tmp_path / "received"
    files.mkdir()
    received.mkdir()
    with rtmp_server(received, port):
        server = serve(allow_outputs=(f"rtmp://127.0.0.1:{port}/live",), output_folder=str(files))
        with Client(server.url) as client, client.create_session("a red circle") as session:
            server.wait_until(lambda: server.registry.live.get(session.created.id))
            sent = session.send_to(f"rtmp://127.0.0.1:{port}/live/secret")
            written = session.send_to("show.mp4")
            assert (sent.state, written.target) == ("sending", "show.mp4")
            assert sent.target == f"rtmp://127.0.0.1:{port}/live/..."
            seen = [frame.pixels for frame, _ in zip(session, range(40))]
            first, second = own(server, session.created.model_dump())
            server.wait_until(lambda: min(first._frames, second._frames) >= 24)
            session.stop_output(sent.id)
            server.wait_until(lambda: first.is_over)
            assert [one.state for one in session.outputs()] == ["ended", "sending"]
        server.wait_until(lambda: second.is_over)
        assert (second.state, second._message) == ("ended", None)
    (flv,) = received.glob("secret-*.flv")
    for path, output in ((flv, first), (files / "show.mp4", second)):
        found = frames_of(path)
        assert found[0].shape == seen[0].shape
        assert len(found) == output._frames if path.suffix == ".mp4" else len(found) > 12
        # Those that the viewer saw too are there in order; colours have half the resolution.
        apart = np.abs(luma(found)[:, None] - luma(seen)).mean((2, 3))
        both = apart.argmin(1)[apart.min(1) < 15]  # others are twice as far apart
        assert len(both) >= 8
        assert (np.diff(both) > 0).all()
    assert list(files.iterdir()) == [files / "show.mp4"]


def test_nothing_is_allowed_by_default(server: Running, tmp_path: Path) -> None:
    created = server.create()
    for target in ("rtmp://127.0.0.1/live/key", "a.mp4", "udp://127.0.0.1:9"):
        assert refused(server, created, target) == (404, "outputs_off")
    server.delete(created)


def test_what_is_refused_holds_no_place(serve: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_text("mine")
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    closed = f"rtmp://127.0.0.1:{free_port()}"
    server = serve(allow_outputs=(closed,), output_folder=str(tmp_path))
    created = server.create()
    targets = ["there.mp4", "link.mp4", "../a.mp4", "rtmp://127.0.0.1/live", f"{closed}/live/key", "a.gif"]
    for target in targets:
        assert refused(server, created, target) == (422, "bad_output")
    assert "no receiver" in begin(server, created, f"{closed}/live/key").text
    assert refused(server, created, "") == (422, "invalid")
    assert server.call(lambda: len(server.session(created).watchers)) == 0
    assert not own(server, created)
    assert (tmp_path / "there.mp4").read_text() == "mine"
    other = server.create()
    assert (
        server.http.post(f"/v1/sessions/{created['id']}/outputs", json={"target": "a.mp4"}).status_code == 404
    )
    headers = {"Authorization": f"Bearer {other['token']}"}
    assert server.http.get(f"/v1/sessions/{created['id']}/outputs", headers=headers).status_code == 404
    assert server.http.delete(f"/v1/sessions/{other['id']}/outputs/x", headers=headers).status_code == 404


def test_a_session_has_some_outputs_at_a_time(serve: Callable[..., Running], tmp_path: Path) -> None:
    server = serve(output_folder=str(tmp_path), max_outputs=1, max_watchers=2)
    created = server.create()
    assert begin(server, created, "a.mp4").status_code == 201
    assert refused(server, created, "b.mp4") == (429, "quota")
    (output,) = own(server, created)
    headers = {"Authorization": f"Bearer {created['token']}"}
    path = f"/v1/sessions/{created['id']}/outputs/{output.id}"
    server.wait_until(lambda: output._frames > 0)
    assert server.http.delete(path, headers=headers).status_code == 204
    server.wait_until(lambda: output.is_over)
    assert begin(server, created, "b.mp4").status_code == 201
    server.delete(created)
    server.wait_until(lambda: all(one.is_over for one in own(server, created)))
    assert len(frames_of(tmp_path / "a.mp4")) == output._frames


def test_a_target_that_hangs_holds_up_nobody_and_keeps_its_place(
    serve: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    class Hanging:
        num_frames = 0

        def __enter__(self) -> Hanging:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, frames: Frames) -> None:
            assert release.wait(TIMEOUT)

    monkeypatch.setattr(outputs, "open_writer", lambda *_, **__: Hanging())
    server = serve(output_folder=str(tmp_path), max_outputs=1, max_sessions=1)
    created = server.create(pace="max")
    assert begin(server, created, "a.mp4").status_code == 201
    with server.attach(created) as viewer:
        assert len(read_frames(viewer, 100)) == 100
    server.delete(created)
    (output,) = own(server, created)
    again = server.create()
    assert refused(server, again, "b.mp4") == (503, "busy")
    release.set()
    server.wait_until(lambda: output.is_over)
    assert begin(server, again, "b.mp4").status_code == 201


def test_the_folder_has_a_limit(serve: Callable[..., Running], tmp_path: Path) -> None:
    server = serve(output_folder=str(tmp_path), max_output_bytes=20_000)
    created = server.create()
    assert begin(server, created, "a.mp4").status_code == 201
    (output,) = own(server, created)
    (tmp_path / "other").write_bytes(bytes(20_000))
    server.wait_until(lambda: output.is_over)
    assert output.state == "ended"
    assert "full" in str(output._message)
    assert len(frames_of(tmp_path / "a.mp4")) == output._frames
    assert refused(server, created, "b.mp4") == (422, "bad_output")
    server.delete(created)


def test_keys_are_not_logged(serve: Callable[..., Running], caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    server = serve(allow_outputs=(f"udp://127.0.0.1:{port}",))
    created = server.create()
    with caplog.at_level(logging.DEBUG, "pyrf"):
        assert begin(server, created, f"udp://127.0.0.1:{port}/secret").status_code == 201
        server.delete(created)
        server.wait_until(lambda: own(server, created)[0].is_over)
    told = [record for record in caplog.records if record.getMessage() == "output begun"]
    assert [getattr(record, "target", "") for record in told] == [f"udp://127.0.0.1:{port}/..."]
    assert not any("secret" in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("allow_outputs", ("rtmp:live",)), ("output_folder", "/nowhere/at/all"), ("max_outputs", 0)],
)
def test_bad_settings(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match="output"):
        ServeSettings(**{setting: value})
