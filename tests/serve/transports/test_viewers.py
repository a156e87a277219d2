"""Viewers that are slow, vanish, come back, or take over."""

from __future__ import annotations

import socket as sockets
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from pyrf.pipeline import Stream, StreamingPipeline
from tests.support.running import (
    PROMPT,
    SEND_BUFFER,
    TIMEOUT,
    Running,
    close_of,
    read,
    read_frames,
    read_until,
)


def deafness(server: Running) -> dict[str, Any]:
    """Options of a connection with so little room that a viewer who does not read is soon noticed."""
    sock = sockets.socket()
    sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, SEND_BUFFER)
    host, port = server.url.removeprefix("http://").split(":")
    sock.connect((host, int(port)))
    return {"sock": sock, "max_queue": 1, "close_timeout": 0.1}


@pytest.fixture
def fast_pipe(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> StreamingPipeline:
    """Plays so many frames per second that real time is never the limit."""
    monkeypatch.setattr(pipe.codec, "fps", 1e5)
    return pipe


def test_a_viewer_that_never_reads_drops_frames_and_hinders_nobody(
    server: Running, fast_pipe: StreamingPipeline
) -> None:
    stuck, lively = server.create(seed=1), server.create(seed=2)
    with server.attach(stuck, **deafness(server)) as deaf, server.attach(lively) as socket:
        server.wait_until(lambda: server.session(stuck).frames_dropped >= 120)
        before = read_frames(socket, 1)[0][0].frame
        assert read_frames(socket, 200)[-1][0].frame > before
        # What is kept for the viewer does not grow with what was dropped.
        session = server.session(stuck)
        kept = server.call(lambda: len(session._buffer))
        assert kept <= server.settings.buffer_chunks
        dropped = server.call(lambda: session.frames_dropped)
        header = read_frames(deaf, 1)[0][0]
        assert header.frame == 0
        while header.dropped < dropped:  # it reads again, and hears of the loss
            previous, (header, _) = header, read_frames(deaf, 1)[0]
        assert header.frame > previous.frame + 1
    server.delete(stuck)
    server.delete(lively)
    metrics = server.http.get("/metrics").text
    line = next(line for line in metrics.splitlines() if line.startswith("pyrf_frames_dropped_total"))
    assert float(line.split()[1]) >= dropped


def test_a_max_session_waits_for_its_viewer(server: Running) -> None:
    created = server.create(seed=1, pace="max")
    with server.attach(created, **deafness(server)) as slow:
        session = server.session(created)
        server.wait_until(lambda: len(session._buffer) == server.settings.buffer_chunks)
        assert server.call(session.ready_at) is None
        headers = [header for header, _ in read_frames(slow, 300)]
    server.delete(created)
    assert [header.frame for header in headers] == list(range(300))
    assert headers[-1].dropped == 0


def test_a_realtime_session_is_not_far_ahead(server: Running) -> None:
    created = server.create()
    session = server.session(created)

    def look() -> tuple[float, int, float | None, float]:
        return time.monotonic() - began, session.frames_made, session.ready_at(), session.deadline

    began = time.monotonic()
    with server.attach(created) as socket:
        for _ in range(3):
            read_frames(socket, 12)
            played_s, made, ready_at, deadline = server.call(look)
            # A lead is made, and a chunk that began before it was whole; the next is due later, not now.
            assert made <= (played_s + server.settings.lead_s) * 16 + 12
            assert ready_at is None or ready_at >= deadline - server.settings.lead_s
    server.delete(created)


def memory_of(session: Any) -> weakref.ref[Any]:
    return weakref.ref(session.stream._state)


def test_disconnect_without_grace_frees_the_memory_within_a_chunk(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = server.create(grace_s=0, pace="max")
    with server.attach(created) as socket:
        read_frames(socket, 9)
        session = server.session(created)
        memory = memory_of(session)
        assert memory() is not None
        # Stop inside a chunk, at its first network call.
        inner = session.stream._state.rollout
        original, calls = inner.denoise, []
        entered, release = threading.Event(), threading.Event()

        def denoise(*arguments: Any) -> Any:
            calls.append(arguments)
            entered.set()
            assert release.wait(TIMEOUT)
            return original(*arguments)

        monkeypatch.setattr(inner, "denoise", denoise)
        assert entered.wait(TIMEOUT)
        server.call(lambda: session.viewer and session.detach(session.viewer))
        server.wait_until(lambda: session.state == "ended" and session.stream.closed)
        release.set()
    server.wait_until(lambda: session.stream._state is None)
    assert len(calls) == 1  # the chunk was given up at its next call
    assert server.http.get(f"/v1/sessions/{created['id']}").status_code == 404


def test_resume_by_token_goes_on_where_it_was(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=9, pace="max")
    got: dict[int, bytes] = {}
    session = server.session(created)
    for _ in range(3):
        with server.attach(created) as socket:
            assert read(socket).type == "hello"
            got.update({header.frame: data for header, data in read_frames(socket, 30)})
            socket.socket.shutdown(sockets.SHUT_RDWR)  # no goodbye
        server.wait_until(lambda: session.state == "detached")
        assert server.call(session.ready_at) is None
    server.delete(created)
    expected = pipe(PROMPT, num_frames=max(got) + 1, seed=9).frames
    assert all(data == expected[frame].tobytes() for frame, data in got.items())


def test_a_detached_session_keeps_its_pause(server: Running) -> None:
    created = server.create(pace="max")
    with server.attach(created) as socket:
        read_frames(socket, 1)
        server.post(created, "/pause")
    session = server.session(created)
    server.wait_until(lambda: session.state == "detached")
    with server.attach(created) as socket:
        assert read(socket).session.state == "paused"
    server.delete(created)


def test_grace_ends(server: Running) -> None:
    created = server.create(grace_s=0.05)
    with server.attach(created) as socket:
        read_frames(socket, 1)
        session = server.session(created)
    server.wait_until(lambda: session.ending == "expired" and session.stream._state is None)
    with server.attach(created) as socket, pytest.raises(ConnectionClosed) as closed:
        read(socket)
    assert close_of(closed).code == 4404


@pytest.mark.parametrize("wrong", [{"token": "x" * 43}, {"id": "0" * 16}, {"token": "none"}])
def test_wrong_token_and_wrong_session_look_the_same(server: Running, wrong: dict[str, str]) -> None:
    created = server.create()
    with server.attach({**created, **wrong}) as socket, pytest.raises(ConnectionClosed) as closed:
        read(socket)
    assert close_of(closed).code == 4404
    response = server.post({**created, **wrong}, "/pause")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "no_session"
    server.delete(created)


def test_the_newest_viewer_takes_over(server: Running) -> None:
    created = server.create(pace="max")
    with server.attach(created) as first:
        read_frames(first, 1)
        with server.attach(created) as second:
            assert read_until(first, "closing").reason == "replaced"
            with pytest.raises(ConnectionClosed) as closed:
                read(first)
            assert close_of(closed).code == 4409
            assert read_frames(second, 24)
    session = server.session(created)
    assert server.call(lambda: session.state in ("running", "detached"))
    server.delete(created)


def test_a_failing_session_ends_alone(serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(max_batch=1)
    bad, good = server.create(pace="max"), server.create(pace="max")
    with server.attach(bad) as first, server.attach(good) as second:
        read_frames(first, 1)
        stream, original = server.session(bad).stream, Stream._compute

        def fail(self: Stream) -> Any:
            if self is stream:
                raise MemoryError("no room")
            return original(self)

        monkeypatch.setattr(Stream, "_compute", fail)
        closing = read_until(first, "closing")
        assert closing.reason == "failed"
        assert "no room" not in closing.message
        with pytest.raises(ConnectionClosed) as closed:
            read(first)
        assert close_of(closed).code == 1011
        frames = [header.frame for header, _ in read_frames(second, 120)]
        assert np.array_equal(frames, np.arange(120))
    server.delete(good)


def test_sessions_in_one_call_show_what_each_shows_alone(server: Running, pipe: StreamingPipeline) -> None:
    with ExitStack() as stack:
        sessions = [server.create(seed=seed, pace="max") for seed in range(3)]
        sockets = [stack.enter_context(server.attach(created)) for created in sessions]
        shown = [read_frames(socket, 57) for socket in sockets]
    for seed, frames in enumerate(shown):
        expected = pipe(PROMPT, num_frames=57, seed=seed).frames
        got = np.stack([np.frombuffer(data, np.uint8).reshape(expected.shape[1:]) for _, data in frames])
        assert np.abs(got.astype(int) - expected).max() <= 1  # a rounding of the last bit
    for created in sessions:
        server.delete(created)
    batches = server.call(lambda: next(iter(server.state.metrics.batch.collect())).samples)
    alone, all_sizes = (next(s.value for s in batches if s.labels.get("le") == le) for le in ("1.0", "+Inf"))
    assert all_sizes > alone


def test_connect_and_vanish_many_times(server: Running) -> None:
    created = server.create(pace="max")
    for i in range(30):
        with server.attach(created, max_queue=1, close_timeout=0.05) as socket:
            if i % 3:
                read_frames(socket, 1)
            if i % 5:
                socket.socket.shutdown(sockets.SHUT_RDWR)
    with server.attach(created) as socket:
        frames = [header.frame for header, _ in read_frames(socket, 24)]
    assert frames == sorted(set(frames))
    server.delete(created)
    assert server.http.get("/v1/model").json()["sessions"] == 0
