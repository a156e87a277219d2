"""The Python client against a real server."""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import av
import numpy as np
import pytest

from pyrf.client import (
    AsyncClient,
    AsyncSession,
    Client,
    Frame,
    RefusedError,
    Session,
    SessionLostError,
    UnreachableError,
)
from pyrf.pipeline import StreamingPipeline
from tests.support.cable import Cable
from tests.support.running import BLUE, PROMPT, TIMEOUT, Running


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


def test_frames_and_a_prompt_switch(server: Running, pipe: StreamingPipeline) -> None:
    async def watch() -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        async with (
            AsyncClient(server.url) as client,
            await client.create_session(PROMPT, seed=6, pace="max") as session,
        ):
            assert session.created.seed == 6
            acts_at: int | None = None
            async for frame in session:
                frames.append(frame)
                if acts_at is None:
                    acts_at = (await session.set_prompt(BLUE)).chunk
                if frame.header.chunk > acts_at:
                    break
            assert (await session.info()).prompt_id == 1
        assert acts_at is not None
        return frames, acts_at

    frames, acts_at = run(watch())
    with pipe.stream(PROMPT, seed=6) as stream:
        expected = [next(stream).frames for _ in range(acts_at)]
        stream.prompt = BLUE
        expected += [next(stream).frames for _ in range(2)]
    whole = np.concatenate(expected)
    assert frames[0].pixels.dtype == np.uint8
    assert np.array_equal(np.stack([frame.pixels for frame in frames]), whole[: len(frames)])
    assert server.http.get("/v1/model").json()["sessions"] == 0


def test_a_lost_connection_is_made_again(server: Running, pipe: StreamingPipeline) -> None:
    async def watch() -> dict[int, np.ndarray]:
        seen: dict[int, np.ndarray] = {}
        async with (
            AsyncClient(server.url) as client,
            await client.create_session(PROMPT, seed=6, pace="max") as session,
        ):
            async for frame in session:
                seen[frame.header.frame] = frame.pixels
                if len(seen) in (5, 15):
                    assert session._socket is not None
                    raw = session._socket.transport.get_extra_info("socket")
                    raw.shutdown(socket.SHUT_RDWR)
                if len(seen) >= 60:
                    break
        return seen

    seen = run(watch())
    expected = pipe(PROMPT, num_frames=max(seen) + 1, seed=6).frames
    assert list(seen) == sorted(seen)
    assert all(np.array_equal(pixels, expected[frame]) for frame, pixels in seen.items())


def test_pause_resume_and_the_end(server: Running) -> None:
    async def watch() -> None:
        async with AsyncClient(server.url) as client:
            session = await client.create_session(PROMPT, format="jpeg")
            frame = await anext(session)
            assert frame.pixels.shape == (session.created.height, session.created.width, 3)
            assert (await session.pause()).state == "paused"
            assert (await session.resume()).state == "running"
            other = server.session(session.created.model_dump())
            server.call(lambda: other.end("max_length"))
            async for _ in session:
                pass
            assert session.closing is not None
            assert session.closing.reason == "max_length"
            await session.close()

    run(watch())


def test_a_session_that_is_gone(server: Running) -> None:
    async def watch() -> None:
        async with AsyncClient(server.url) as client:
            session = await client.create_session(PROMPT)
            server.delete(session.created.model_dump())
            with pytest.raises(SessionLostError, match="no such session"):
                await anext(session)
            with pytest.raises(RefusedError, match="no such session"):
                await session.pause()

    run(watch())


def test_a_server_that_dies(server: Running) -> None:
    async def watch(session: AsyncSession, cable: Cable) -> None:
        async with session:
            await anext(session)
            cable.unplug()
            async for _ in session:
                pass

    async def main(cable: Cable) -> None:
        async with AsyncClient(f"http://127.0.0.1:{cable.port}", patience=0) as client:
            session = await client.create_session(PROMPT, grace_s=0)
            with pytest.raises(SessionLostError, match="no connection to session"):
                await watch(session, cable)
            with pytest.raises(UnreachableError):  # where nothing else went wrong
                await session.__aexit__(None, None, None)

    with Cable(int(server.url.rpartition(":")[2])) as cable:
        run(main(cable))
    server.wait_until(lambda: not server.registry.live)


def test_a_server_that_dies_without_an_event_loop(server: Running) -> None:
    def watch(session: Session, cable: Cable) -> None:
        with session:
            for _ in session:
                cable.unplug()

    with (
        Cable(int(server.url.rpartition(":")[2])) as cable,
        Client(f"http://127.0.0.1:{cable.port}", patience=0) as client,
    ):
        session = client.create_session(PROMPT, grace_s=0)
        with pytest.raises(SessionLostError, match="no connection to session"):
            watch(session, cable)
        with pytest.raises(UnreachableError):
            session.__exit__(None, None, None)
    server.wait_until(lambda: not server.registry.live)


def test_refusals(serve: Callable[..., Running]) -> None:
    server = serve(token="secret", max_sessions=1)

    async def ask() -> None:
        async with AsyncClient(server.url, "wrong") as client:
            with pytest.raises(RefusedError) as refused:
                await client.create_session(PROMPT)
            assert (refused.value.status, refused.value.code) == (401, "unauthorized")
        async with AsyncClient(server.url, "secret", patience=0) as client:
            assert (await client.server_info()).limits.max_sessions == 1
            with pytest.raises(RefusedError, match="the prompt is empty"):
                await client.create_session("")
            async with await client.create_session(PROMPT):
                for call in (client.create_session(PROMPT), anext(client.video(PROMPT))):
                    with pytest.raises(RefusedError) as refused:
                        await call
                    assert (refused.value.status, refused.value.code) == (503, "full")
                    assert refused.value.retry_after is not None
                    assert refused.value.retry_after > 0

    run(ask())


def test_a_clip(server: Running) -> None:
    async def fetch() -> bytes:
        async with AsyncClient(server.url) as client, aclosing(client.video(PROMPT, 30)) as pieces:
            return b"".join([piece async for piece in pieces])

    data = run(fetch())
    with Client(server.url) as client:
        assert b"".join(client.video(PROMPT, 30)) == data
    with av.open(io.BytesIO(data), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


@pytest.mark.parametrize("fps", [12.5, 24000 / 1001])
def test_a_frame_rate_need_not_be_whole(
    server: Running, pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch, fps: float
) -> None:
    monkeypatch.setattr(pipe.codec, "fps", fps)
    with Client(server.url) as client:
        assert client.server_info().fps == fps
        with client.create_session(PROMPT, pace="max") as session:
            assert session.created.fps == session.info().fps == fps
            for i, frame in zip(range(33), session):
                assert frame.header.pts_s == pytest.approx(i / fps, abs=1e-9)
        data = b"".join(client.video(PROMPT, 21))
    with av.open(io.BytesIO(data), "r") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([i / fps for i in range(21)], abs=1e-3)


def test_without_an_event_loop(server: Running, pipe: StreamingPipeline) -> None:
    with Client(server.url) as client:
        assert client.server_info().model == "random"
        with client.create_session(PROMPT, seed=8, pace="max") as session:
            frames = [frame.pixels for frame, _ in zip(session, range(30))]
            assert session.set_prompt(BLUE).prompt_id == 1
            assert session.pause().state == "paused"
            assert session.resume().state == "running"
            assert session.info().id == session.created.id
            assert session.closing is None
        with pytest.raises(RefusedError):
            session.pause()
    assert np.array_equal(np.stack(frames), pipe(PROMPT, num_frames=30, seed=8).frames)


def run_without(blocked: str, code: str) -> str:
    """What a program prints in a process that cannot import some packages."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({blocked.split()}))\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_client_needs_nothing_of_the_server() -> None:
    server = "torch av fastapi starlette uvicorn aiortc prometheus_client opentelemetry pyrf.serve"
    assert run_without(server, "import pyrf.client; print(pyrf.client.Client.__name__)") == "Client\n"


@pytest.mark.parametrize("package", ["httpx", "pydantic", "websockets"])
def test_what_it_needs_is_named(package: str) -> None:
    code = "try: import pyrf.client\nexcept ValueError as error: print(error)"
    message = run_without(package, code)
    assert message.startswith(f"the client needs {package}")
    assert "[client]" in message
