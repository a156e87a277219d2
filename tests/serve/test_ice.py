"""STUN and TURN servers: how they are named, and who is told of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiortc import RTCIceServer
from aiortc.rtcicetransport import connection_kwargs

from pyrf.serve.ice import parse_ice_server
from pyrf.serve.settings import ServeSettings
from tests.support.running import Running

STUN, TURN = "stun:stun.example", "turn:bob:secret@turn.example:3479"


@pytest.mark.parametrize(
    ("text", "urls", "username", "credential"),
    [
        (STUN, STUN, None, None),
        ("stun:192.0.2.1:19302", "stun:192.0.2.1:19302", None, None),
        (TURN, "turn:turn.example:3479", "bob", "secret"),
        ("turn:17%3Abob:a:b%40%25@turn.example", "turn:turn.example", "17:bob", "a:b@%"),
        ("turn:b:s@turn.example?transport=tcp", "turn:turn.example?transport=tcp", "b", "s"),
        ("turns:b:s@turn.example:443?transport=tcp", "turns:turn.example:443?transport=tcp", "b", "s"),
    ],
)
def test_servers(text: str, urls: str, username: str | None, credential: str | None) -> None:
    server = parse_ice_server(text)
    assert (server.urls, server.username, server.credential) == (urls, username, credential)
    used = connection_kwargs([RTCIceServer(**server.model_dump())])  # what aiortc makes of it
    assert (used.get("turn_username"), used.get("turn_password")) == (username, credential)
    assert ("stun_server" in used) == text.startswith("stun:")


@pytest.mark.parametrize(
    "text",
    [
        "foo",
        "",
        "stun:",
        "stuns:stun.example",
        "stun:stun.example:0",
        "stun:stun.example:99999",
        "stun:bob:secret@stun.example",
        "stun:stun.example?transport=udp",
        "turn:turn.example",  # a browser takes none without credentials
        "turn:bob@turn.example",
        "turn:bob:secret@",
        "turn:bob:secret@turn.example?transport=quic",
        "turns:bob:secret@turn.example?transport=udp",
        "turn://bob:secret@turn.example",
        "stun:stun.example\n",
    ],
)
def test_a_typo_is_noticed_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match=r"no STUN or TURN server is named by .*; expected stun:") as refused:
        ServeSettings(ice_servers=(STUN, text))
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_viewers_are_told(serve: Callable[..., Running]) -> None:
    servers = serve(ice_servers=(STUN, TURN)).http.get("/v1/model").json()["ice_servers"]
    turn = {"urls": "turn:turn.example:3479", "username": "bob", "credential": "secret"}
    assert servers == [{"urls": STUN}, turn]
