"""Which replica a request goes to, without a cluster."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray Serve is in the ray extra")

from ray.serve._private.common import StreamingHTTPRequest

from pyrf.serve.ray.router import SessionRouter


def replica(name: str, full: bool = False) -> Any:
    return SimpleNamespace(replica_id=SimpleNamespace(unique_id=name), routing_stats={"full": full})


def request(path: str) -> Any:
    sent = pickle.dumps(StreamingHTTPRequest({"path": path}, proxy_actor_name="proxy"))  # as Ray's proxy does
    return SimpleNamespace(args=[sent], routing_context=SimpleNamespace())


@pytest.fixture
def choose() -> Any:
    """The names of the replicas that a router would try for a path, in that order."""
    router = object.__new__(SessionRouter)  # its base wants a cluster
    router._turns, router._clock = {}, itertools.count(1)

    def choose(path: str, replicas: list[Any]) -> list[str]:
        ranks = asyncio.run(router.choose_replicas(replicas, request(path)))
        return [rank[0].replica_id.unique_id for rank in ranks]

    return choose


@pytest.mark.parametrize("rest", ["", "/ws", "/prompt", "/webrtc"])
def test_a_session_goes_to_its_replica_even_when_that_is_full(choose: Any, rest: str) -> None:
    replicas = [replica("one"), replica("two", full=True)]
    assert choose(f"/v1/sessions/two.0123abcd{rest}", replicas) == ["two"]


def test_an_admin_ends_a_session_where_it_is(choose: Any) -> None:
    replicas = [replica("one"), replica("two", full=True)]
    assert choose("/v1/admin/sessions/two.0123abcd", replicas) == ["two"]


def test_new_sessions_go_round_the_replicas_with_room(choose: Any) -> None:
    replicas = [replica("one"), replica("two", full=True), replica("three")]
    firsts = [choose("/v1/sessions", replicas)[0] for _ in range(4)]
    assert firsts == ["one", "three", "one", "three"]


@pytest.mark.parametrize(
    "path", ["/v1/sessions/gone.0123abcd", "/v1/sessions/nonsense", "/v1/sessions/.", "/"]
)
def test_a_session_of_no_replica_may_go_to_any(choose: Any, path: str) -> None:
    assert set(choose(path, [replica("one"), replica("two")])) == {"one", "two"}
