"""`pyrf serve --ray`: how many replicas there are, and what becomes of their sessions."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="Ray Serve is in the ray extra")

from pyrf.client import AsyncClient, AsyncSession, RefusedError, SessionLostError
from pyrf.serve.ray.app import RayOptions, SessionPolicy, application
from pyrf.serve.settings import ServeSettings

RED, BLUE = "a red circle moves right", "a blue square"
TIMEOUT_S = 300
ROOM = 4


@pytest.mark.parametrize(
    ("sessions", "wanted"), [([], 1), ([0], 1), ([3], 1), ([4], 2), ([3, 3], 2), ([4, 3], 3), ([4, 4, 4], 3)]
)
def test_the_policy_counts_live_sessions(sessions: list[int], wanted: int) -> None:
    series = {
        i: [SimpleNamespace(value=9.0), SimpleNamespace(value=float(n))] for i, n in enumerate(sessions)
    }
    context: Any = SimpleNamespace(
        raw_metrics={"sessions": series}, capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=3
    )
    assert SessionPolicy(ROOM)(context) == (wanted, {})


@pytest.mark.parametrize(("least", "most"), [(0, 1), (3, 2)])
def test_impossible_numbers_of_replicas_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="replicas must be at least 1 and at most max_replicas"):
        RayOptions(least, most)


@pytest.mark.parametrize(("gpu", "gpus"), [(True, 2), (False, 0)])
def test_a_replica_has_what_its_ranks_need(gpu: bool, gpus: int) -> None:
    app = application({}, model="tiny", settings=ServeSettings(), options=RayOptions(gpu=gpu, ranks=2))
    assert app._bound_deployment.ray_actor_options == {"num_gpus": gpus, "num_cpus": 2}


def test_who_starts_replicas_loads_no_model_code() -> None:
    code = "import sys, pyrf.serve.ray.app; print(*(m for m in ('torch', 'av') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


class Cluster:
    """`pyrf serve --ray` in a process of its own."""

    def __init__(self, replicas: int, max_replicas: int, *options: str) -> None:
        pyrf = str(Path(sys.executable).with_name("pyrf"))
        command = [pyrf, "serve", "--ray", "--port", "0", "--threads", "1", "--grace", "600"]
        command += ["--replicas", str(replicas), "--max-replicas", str(max_replicas)]
        command += ["--max-sessions", str(ROOM), "--max-sessions-per-address", str(ROOM)]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        for line in self.process.stdout:
            if found := re.search(r"pyrf serves tiny at (\S+)", line):
                self.url = found[1]
                return
        raise AssertionError(f"the server ended with {self.process.wait()}")

    def client(self) -> AsyncClient:
        return AsyncClient(self.url, timeout=TIMEOUT_S)

    def replicas(self) -> list[psutil.Process]:
        """The processes of its replicas."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in processes if "ServeReplica" in " ".join(p.cmdline())]

    def close(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode


@pytest.mark.slow
def test_a_model_that_cannot_be_had_is_one_line() -> None:
    pyrf = str(Path(sys.executable).with_name("pyrf"))
    command = [pyrf, "serve", "--ray", "--port", "0", "--model", "./nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "nowhere" in last


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(2, 2)
    yield cluster
    if cluster.process.poll() is None:
        cluster.close()


def name(session: AsyncSession) -> str:
    """Of the replica that holds a session."""
    return session.created.id.partition(".")[0]


async def create(client: AsyncClient) -> AsyncSession:
    """Begin a session, when there is room for one."""
    while True:
        try:
            return await client.create_session(RED)
        except RefusedError as error:
            if error.code != "full":
                raise
            await asyncio.sleep(1)


async def close_all(sessions: list[AsyncSession]) -> None:
    for session in sessions:
        await session.close()


@pytest.mark.slow
def test_calls_and_sockets_of_a_session_reach_its_replica(cluster: Cluster) -> None:
    async def main() -> None:
        async with cluster.client() as client:
            sessions = [await client.create_session(RED, seed=i) for i in range(4)]
            assert len(set(map(name, sessions))) == 2
            for session in sessions * 3:
                assert (await session.info()).id == session.created.id
            await asyncio.gather(*map(sees_blue, sessions))
            await close_all(sessions)

    async def sees_blue(session: AsyncSession) -> None:
        frame = await anext(session)
        assert frame.header.frame == 0
        reply = await session.set_prompt(BLUE)
        await session.disconnect()  # and attach anew
        async for frame in session:
            if frame.header.prompt_id == reply.prompt_id:
                assert frame.header.chunk == reply.chunk
                return

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


@pytest.mark.slow
def test_kill_9_of_a_replica_ends_its_sessions_and_no_others(cluster: Cluster) -> None:
    async def main() -> None:
        async with cluster.client() as client:
            sessions = [await client.create_session(RED) for _ in range(2)]
            assert len(set(map(name, sessions))) == 2
            for session in sessions:
                await anext(session)
            victim, _ = cluster.replicas()
            victim.kill()
            lost = asyncio.Event()
            outcomes = await asyncio.gather(*(outlives(session, lost) for session in sessions))
            assert sorted(outcomes) == [False, True]
            gone, left = sorted(sessions, key=lambda session: outcomes[sessions.index(session)])
            with pytest.raises(SessionLostError, match="there is no such session"):
                await anext(gone)
            other = await client.create_session(RED)  # at once: the router knows
            await anext(other)
            while len(cluster.replicas()) < 2:
                await asyncio.sleep(0.2)
            later = await create_at_new_replica(client, {name(session) for session in sessions})
            assert (await later.info()).id == later.created.id
            await anext(later)
            await close_all([left, other, later])

    async def create_at_new_replica(client: AsyncClient, old: set[str]) -> AsyncSession:
        """Begin a session at the replica that took the killed one's place, once it is there."""
        while True:
            session = await client.create_session(RED)
            if name(session) not in old:
                return session
            await session.close()
            await asyncio.sleep(0.2)

    async def outlives(session: AsyncSession, lost: asyncio.Event) -> bool:
        """Whether the session goes on after another was lost."""
        try:
            async for _ in session:
                if lost.is_set():
                    return True
        except SessionLostError:
            lost.set()
        return False

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


@pytest.mark.slow
def test_sigterm_tells_every_viewer_and_exits_0(cluster: Cluster) -> None:
    async def main() -> None:
        async with cluster.client() as client:
            sessions = [await create(client) for _ in range(2)]
            for session in sessions:
                await anext(session)
            cluster.process.send_signal(signal.SIGTERM)
            for session in sessions:
                async for _ in session:
                    pass
                assert session.closing is not None
                assert session.closing.reason == "shutdown"

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
    assert cluster.process.wait(TIMEOUT_S) == 0


@pytest.mark.slow
def test_live_sessions_bring_a_second_replica(cluster: Cluster) -> None:
    async def main() -> None:
        async with cluster.client() as client:
            sessions = [await client.create_session(RED) for _ in range(ROOM)]
            assert len(set(map(name, sessions))) == 1
            another = await create(client)
            assert name(another) != name(sessions[0])
            await close_all([*sessions, another])

    cluster = Cluster(1, 2)
    try:
        asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
    finally:
        assert cluster.close() == 0
