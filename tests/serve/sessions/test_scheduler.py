"""Whose turn it is, on a clock of the test's own and with chunks that cost what the test says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrf.serve.metrics import Metrics
from pyrf.serve.sessions import scheduler as scheduler_module
from pyrf.serve.sessions import session as session_module
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.scheduler import Scheduler
from pyrf.serve.sessions.session import Session

FPS, LEAD_S = 16.0, 0.5
CHUNK = SimpleNamespace(frames=np.empty((12, 0, 0, 3), np.uint8), index=1)
CHUNK_S = 12 / FPS


class World:
    """Sessions whose viewers take all at once, and models whose chunks take `cost` seconds.

    Attributes:
        costs: of the chunks of some models, in place of `cost`.
    """

    def __init__(self, cost: float, max_batch: int = 1) -> None:
        self.cost, self.now = cost, 0.0
        self.costs: dict[str, float] = {}
        self.scheduler = Scheduler(Metrics(), max_batch, LEAD_S)
        self.sessions: list[Session] = []
        self.served: list[Session] = []
        self.batches: list[list[Session]] = []

    def add(
        self,
        pace: Any = "realtime",
        *,
        attach: bool = True,
        height: int = 32,
        address: str = "",
        model: str = "",
        together: bool = True,
    ) -> Session:
        options = SessionOptions(
            *(0, height, 48, FPS, pace, 30.0, LEAD_S, 2), address=address, model=model, together=together
        )
        session = Session(
            str(len(self.sessions)),
            "",
            SimpleNamespace(),  # type: ignore[arg-type]
            options,
            changed=lambda: None,
            on_end=lambda session, reason: None,
        )
        self.scheduler.add(session)
        self.sessions.append(session)
        if attach:
            session.attach("test")
        return session

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            turn, wait_s = self.scheduler._next()
            sessions = cast(list[Session], turn)  # nothing else was added
            if not sessions:
                self.now += end - self.now if wait_s is None else max(wait_s, 1e-6)
                continue
            self.scheduler._shares.count(sessions)
            for session in sessions:
                session.start_chunk()
            took_s = self.costs.get(session.model, self.cost) * len(sessions)
            self.now += took_s
            self.scheduler._calls[session.model].count(len(sessions), took_s)
            for session in sessions:
                session.finish_chunk(CHUNK, len(sessions), 0, 0)  # type: ignore[arg-type]
                if session.viewer is not None:
                    session.take()
            self.served += sessions
            self.batches.append(sessions)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, World]:
    """Makes the modules' clock that of the world a test puts in."""
    world: dict[str, World] = {}
    time = SimpleNamespace(monotonic=lambda: world["world"].now if world else 0.0, time_ns=lambda: 0)
    monkeypatch.setattr(session_module, "time", time)
    monkeypatch.setattr(scheduler_module, "time", time)
    return world


def simulate(clock: dict[str, World], cost: float, act: Any, max_batch: int = 1) -> None:
    async def main() -> None:
        clock.clear()
        clock["world"] = world = World(cost, max_batch)
        act(world)
        await world.scheduler.stop()
        for session in world.sessions:
            session.end("closed")

    asyncio.run(main())


@given(count=st.integers(1, 8), load=st.floats(0.05, 0.9), max_batch=st.integers(1, 4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_viewers_never_run_dry_when_there_is_time(
    clock: Any, count: int, load: float, max_batch: int
) -> None:
    def act(world: World) -> None:
        for _ in range(count):
            world.add()
        world.run(60)
        for session in world.sessions:
            # In real time: as many frames as were played, and no more than the lead and a chunk ahead.
            assert session.deadline >= world.now - world.cost
            assert session.frames_made / FPS <= world.now + LEAD_S + CHUNK_S + 1e-6
            assert session.frames_made / FPS >= world.now - CHUNK_S
            assert session.frames_dropped == 0

    simulate(clock, min(load * CHUNK_S / count, LEAD_S / count / max_batch), act, max_batch)


@pytest.mark.parametrize("cost", [0.05, 0.12])
@pytest.mark.parametrize("max_batch", [1, 4])
@pytest.mark.parametrize("pace", ["realtime", "max"])
def test_who_holds_many_sessions_is_late_and_nobody_else(
    clock: Any, pace: str, max_batch: int, cost: float
) -> None:
    """Those of one address want more than there is; two of other addresses do not notice."""

    def act(world: World) -> None:
        modest = [world.add(address=f"10.0.0.{i}") for i in range(2)]
        world.run(5)
        for _ in range(24):
            world.add(pace, address="10.0.0.9")
        world.run(60)
        for session in modest:
            assert session.frames_made / FPS >= world.now - CHUNK_S
            assert session.deadline >= world.now - cost
        greedy = [session for session in world.sessions if session not in modest]
        made = [session.frames_made for session in greedy]
        assert max(made) - min(made) <= 48  # they take turns among themselves

    simulate(clock, cost, act, max_batch)


@given(
    count=st.integers(2, 8), load=st.floats(1.2, 4), paces=st.integers(0, 255), max_batch=st.integers(1, 4)
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_take_turns_when_there_is_not(
    clock: Any, count: int, load: float, paces: int, max_batch: int
) -> None:
    def act(world: World) -> None:
        for i in range(count):
            world.add("max" if paces >> i & 1 else "realtime")
        world.run(60 * CHUNK_S * load)
        turns = [world.served.count(session) for session in world.sessions]
        realtime = [n for n, session in zip(turns, world.sessions) if session.options.pace == "realtime"]
        if realtime:
            assert max(realtime) - min(realtime) <= 0.2 * max(realtime) + 3
        # Who asks for all may get a turn more, while the others wait for theirs to be due.
        assert max(turns) <= 2 * min(turns) + 3

    simulate(clock, load * CHUNK_S / count, act, max_batch)


def test_spare_time_goes_to_those_who_want_it(clock: dict[str, World]) -> None:
    def act(world: World) -> None:
        live, greedy, other = world.add(), world.add("max"), world.add("max")
        world.run(30)
        assert live.deadline >= world.now
        assert live.frames_made / FPS == pytest.approx(30 + LEAD_S, abs=CHUNK_S)
        turns = world.served.count(greedy), world.served.count(other)
        assert abs(turns[0] - turns[1]) <= 1
        assert sum(turns) > 30 / world.cost - 60

    simulate(clock, 0.05, act)


def test_a_newcomer_does_not_wait_for_all_others(clock: dict[str, World]) -> None:
    def act(world: World) -> None:
        for _ in range(16):
            world.add()  # twice what the model can do
        world.run(30)
        newcomer = world.add(attach=False)
        world.run(0.3)
        assert newcomer in world.served[-4:]  # with its first chunk it is next

    simulate(clock, 2 * CHUNK_S / 16, act)


def test_without_a_viewer_one_chunk_is_made(clock: dict[str, World]) -> None:
    def act(world: World) -> None:
        session = world.add("max", attach=False)
        world.run(10)
        assert session.chunks_started == 1
        session.attach("test")
        assert session.take() is not None
        world.run(1)
        assert session.chunks_started > 10

    simulate(clock, 0.05, act)


def test_a_pause_does_not_have_to_be_made_up_for(clock: dict[str, World]) -> None:
    def act(world: World) -> None:
        session, other = world.add(), world.add()
        world.run(5)
        session.pause()
        world.run(20)
        assert session.ready_at() is None
        made = session.frames_made
        session.resume()
        world.run(5)
        assert session.frames_made - made <= (5 + LEAD_S + CHUNK_S) * FPS
        assert other.deadline >= world.now

    simulate(clock, 0.05, act)


def test_company_has_one_size_and_no_newcomers(clock: dict[str, World]) -> None:
    def act(world: World) -> None:
        small = [world.add("max") for _ in range(5)]
        large = [world.add("max", height=64) for _ in range(2)]
        world.run(10)
        firsts = world.batches[:7]
        assert sorted(session.id for (session,) in firsts) == sorted(s.id for s in (*small, *large))
        later = world.batches[7:]
        assert max(len(batch) for batch in later) == 4
        assert all(len({session.size for session in batch}) == 1 for batch in later)
        turns = [world.served.count(session) for session in world.sessions]
        assert max(turns) <= 2 * min(turns)

    simulate(clock, 0.05, act, max_batch=4)


@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_slow_model_that_wants_too_much_makes_nobody_else_late(clock: Any, max_batch: int) -> None:
    """Two viewers of a slow model want more time than there is; the one of a fast model takes its due."""

    def act(world: World) -> None:
        world.costs = {"slow": 0.45, "fast": 0.02}
        fast = world.add(address="a", model="fast")
        slow = [world.add(address=address, model="slow") for address in "bc"]
        world.run(120)
        assert fast.frames_made / FPS >= 119
        rates = [session.frames_made / FPS / 120 for session in slow]
        assert min(rates) > 0.7
        assert max(rates) - min(rates) < 0.05

    simulate(clock, 0.0, act, max_batch)


def test_only_sessions_of_one_model_are_computed_together(clock: Any) -> None:
    def act(world: World) -> None:
        for model in ("a", "b") * 3:
            world.add(model=model)
        for _ in range(2):
            world.add(model="alone", together=False)
        world.run(10)
        assert {len({session.kin for session in batch}) for batch in world.batches} == {1}
        assert {batch[0].model for batch in world.batches if len(batch) > 1} == {"a", "b"}
        assert {len(batch) for batch in world.batches if batch[0].model == "alone"} == {1}

    simulate(clock, 0.08, act, max_batch=4)
