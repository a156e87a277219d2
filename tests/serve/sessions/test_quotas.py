"""What one address may hold, and what it is told beyond that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from pyrf.serve.settings import ServeSettings
from tests.support.abuse import OTHER_ADDRESS
from tests.support.running import PROMPT, TIMEOUT, Running, close_of, read, read_frames, read_until

Serve = Callable[..., Running]
BODY = {"prompt": PROMPT}


@contextmanager
def client_at(server: Running, address: str) -> Iterator[httpx.Client]:
    """A client of another address."""
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=server.url, transport=transport, timeout=TIMEOUT) as client:
        yield client


def refusal(reply: httpx.Response) -> str:
    """The code of a 429, which says when to come back."""
    assert reply.status_code == 429, reply.text
    error = reply.json()["error"]
    assert int(reply.headers["retry-after"]) >= error["retry_after"] > 0
    code: str = error["code"]
    return code


def test_the_rate_of_new_sessions_is_that_of_an_address(serve: Serve) -> None:
    server = serve(creates_per_minute=2)
    for _ in range(2):
        server.create()
    assert refusal(server.http.post("/v1/sessions", json=BODY)) == "rate_limited"
    with client_at(server, OTHER_ADDRESS) as other:  # has its own two
        for _ in range(2):
            assert other.post("/v1/sessions", json=BODY).status_code == 201
        assert refusal(other.post("/v1/sessions", json=BODY)) == "rate_limited"


def test_one_address_does_not_get_every_seat(serve: Serve) -> None:
    server = serve(max_sessions=4)
    greedy = [server.create() for _ in range(3)]
    for path in ("/v1/sessions", "/v1/videos"):
        assert refusal(server.http.post(path, json=BODY)) == "quota"
    with client_at(server, OTHER_ADDRESS) as other:
        assert other.post("/v1/sessions", json=BODY).status_code == 201
        full = other.post("/v1/sessions", json=BODY)
        assert (full.status_code, full.json()["error"]["code"]) == (503, "full")
    server.delete(greedy[0])
    server.create()
    text = server.http.get("/metrics").text
    assert 'pyrf_refused_total{code="quota"} 2.0' in text


@pytest.mark.parametrize(("seats", "share"), [(1, 1), (2, 2), (3, 3), (4, 3), (16, 12), (64, 48)])
def test_by_default_a_quarter_of_the_seats_is_left_for_others(seats: int, share: int) -> None:
    assert ServeSettings(max_sessions=seats).sessions_per_address == share
    assert ServeSettings(max_sessions=seats, max_sessions_per_address=2).sessions_per_address == 2


def test_one_address_has_some_clips_at_a_time(serve: Serve) -> None:
    server = serve(max_clips_per_address=1)
    body = BODY | {"num_frames": 960}
    with server.http.stream("POST", "/v1/videos", json=body) as clip:
        assert clip.status_code == 200
        assert refusal(server.http.post("/v1/videos", json=body)) == "quota"
        server.delete(server.create())  # sessions are another matter
        with (
            client_at(server, OTHER_ADDRESS) as other,
            other.stream("POST", "/v1/videos", json=body) as second,
        ):
            assert second.status_code == 200
    server.wait_until(lambda: server.registry.info().sessions == 0)
    assert server.http.post("/v1/videos", json=BODY | {"num_frames": 9}).status_code == 200


def test_one_address_has_some_sessions_without_a_viewer(serve: Serve) -> None:
    server = serve(max_detached_per_address=2)
    first, _ = server.create(), server.create()
    assert refusal(server.http.post("/v1/sessions", json=BODY)) == "quota"
    with ExitStack() as stack:
        read_frames(stack.enter_context(server.attach(first)), 1)
        server.create()
        assert refusal(server.http.post("/v1/sessions", json=BODY)) == "quota"
        with client_at(server, OTHER_ADDRESS) as other:
            assert other.post("/v1/sessions", json=BODY).status_code == 201


def test_addresses_of_one_ipv6_network_are_one(serve: Serve) -> None:
    server = serve(max_sessions_per_address=1, trusted_proxies=("127.0.0.1",))

    def create(address: str) -> httpx.Response:
        return server.http.post("/v1/sessions", json=BODY, headers={"X-Forwarded-For": address})

    assert create("2001:db8:1:2::1").status_code == 201
    assert refusal(create("2001:db8:1:2:ffff::9")) == "quota"
    assert create("2001:db8:1:3::1").status_code == 201
    assert create("::ffff:192.0.2.1").status_code == 201
    assert refusal(create("192.0.2.1")) == "quota"


def test_a_pause_has_an_end(serve: Serve) -> None:
    server = serve(pause_s=0.3)
    created = server.create()
    with server.attach(created) as viewer:
        read_frames(viewer, 1)
        server.post(created, "/pause")
        server.post(created, "/pause")  # does not begin it anew
        closing = read_until(viewer, "closing")
        assert (closing.reason, closing.message) == ("idle", "the session was paused for too long")
        with pytest.raises(ConnectionClosed) as closed:
            read(viewer)
        assert close_of(closed).code == 4408
    assert server.post(created, "/resume").status_code == 404


def test_a_session_that_goes_on_after_a_pause_stays(serve: Serve) -> None:
    server = serve(pause_s=0.3)
    created = server.create()
    with server.attach(created) as viewer:
        read_frames(viewer, 1)
        server.post(created, "/pause")
        server.post(created, "/resume")
        session: Any = server.session(created)
        assert server.call(lambda: session._pause_end) is None
        read_frames(viewer, 12)
    server.delete(created)


def test_nonsense_counts_as_controls(serve: Serve) -> None:
    server = serve(controls_per_second=0.2)
    created = server.create()
    with server.attach(created) as viewer:
        for expected in ("invalid", "invalid", "rate_limited"):
            viewer.send("nonsense")
            assert read_until(viewer, "error").error.code == expected
    server.delete(created)
