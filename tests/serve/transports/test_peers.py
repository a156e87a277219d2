"""What strangers may do to a server over WebRTC: each thing that they can make it spend has a bound."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest
from aioice.ice import get_host_addresses
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription

from pyrf.protocol import MAX_SDP
from pyrf.serve.settings import ServeSettings
from pyrf.serve.transports import channel, ice, webrtc
from pyrf.serve.transports.ice import Network
from tests.serve.transports.test_offers import GOOD, candidate
from tests.serve.transports.test_webrtc import Peer, run
from tests.support.running import BLUE, Running

LAN = list(get_host_addresses(use_ipv4=True, use_ipv6=False))


def post(server: Running, created: dict[str, Any], sdp: str = GOOD) -> httpx.Response:
    return server.post(created, "/webrtc", sdp=sdp, type="offer")


def candidates(response: httpx.Response) -> list[tuple[str, int, str]]:
    """Where the server says that it may be reached."""
    assert response.status_code == 200, response.text
    media = SessionDescription.parse(response.json()["sdp"]).media[0]
    return [(one.ip, one.port, one.type) for one in media.ice_candidates]


def udp_addresses() -> set[str]:
    """At which this process has UDP sockets."""
    return {conn.laddr.ip for conn in psutil.Process().net_connections("udp") if conn.laddr}


def udp_ports() -> set[int]:
    return {conn.laddr.port for conn in psutil.Process().net_connections("udp") if conn.laddr}


def test_a_server_on_loopback_opens_no_port_to_others(server: Running) -> None:
    created = server.create()
    before = udp_addresses()
    assert {ip for ip, _, _ in candidates(post(server, created))} <= {"127.0.0.1", "::1"}
    assert udp_addresses() - before <= {"127.0.0.1", "::1"}
    server.delete(created)


def test_ports_and_the_announced_address(serve: Callable[..., Running]) -> None:
    server = serve(webrtc_ports="50200-50231", nat_address="198.51.100.9")
    created = server.create()
    found = candidates(post(server, created))
    assert {50200 <= port <= 50231 for _, port, _ in found} == {True}
    assert {ip for ip, _, kind in found if kind == "srflx"} == ({"198.51.100.9"} if LAN else set())
    assert {ip for ip, _, kind in found if kind == "host" and ":" not in ip} == set(LAN)
    server.delete(created)


def test_no_port_of_the_range_is_free(serve: Callable[..., Running]) -> None:
    server = serve(webrtc_ports="50300-50300")
    created = server.create()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken6,
    ):
        taken.bind(("127.0.0.1", 50300))
        taken6.bind(("::1", 50300))
        response = post(server, created)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "busy")
    assert not server.state.peers._peers
    server.delete(created)


def test_webrtc_can_be_switched_off(serve: Callable[..., Running]) -> None:
    server = serve(webrtc=False)
    assert server.http.get("/v1/model").json()["webrtc"] is False
    created = server.create()
    before = udp_addresses()
    response = post(server, created)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "webrtc_off")
    assert udp_addresses() == before
    server.delete(created)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"webrtc_ports": "50000"}, "--webrtc-ports is LO-HI"),
        ({"webrtc_ports": "60000-50000"}, "--webrtc-ports is LO-HI"),
        ({"webrtc_ports": "80-90"}, "in 1024..65535"),
        ({"webrtc_ports": "50000-70000"}, "in 1024..65535"),
        ({"nat_address": "my.host"}, "is an IP address, and no name; got 'my.host'"),
        ({"nat_address": "0.0.0.0"}, "nobody reaches 0.0.0.0"),
        ({"nat_address": "ff02::1"}, "nobody reaches ff02::1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServeSettings(**settings)


def test_where_a_server_listens() -> None:
    assert Network.of(ServeSettings()).addresses() == ("127.0.0.1", "::1")
    assert Network.of(ServeSettings(nat_address="198.51.100.9")).loopback is False
    assert Network.of(ServeSettings(loopback=False)).loopback is False


def test_packets_go_to_nobody_but_the_viewer(server: Running) -> None:
    """700 candidates in one offer sent 2,000 packets to ports of the sender's choice."""
    created = server.create()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind((LAN[0] if LAN else "127.0.0.2", 0))
        host, port = victim.getsockname()
        many = "".join(candidate(host, 1024 + i) + "\r\n" for i in range(700))
        assert post(server, created, GOOD + many).status_code == 422
        aimed = GOOD.replace("m=application", candidate(host, port) + "\r\nm=application")
        assert post(server, created, aimed).status_code == 200
        peer, ours = peer_of(server, created), ice_of(server, created)
        server.wait_until(lambda: peer.connection.iceConnectionState == "checking")
        assert ours.remote_candidates == []
        assert ours._check_list == []
        victim.setblocking(False)
        with pytest.raises(BlockingIOError):
            victim.recv(2000)
    server.delete(created)


def test_offers_are_bounded_by_session_address_and_in_all(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    sessions = [server.create() for _ in range(6)]
    for _ in range(8):  # of one session the newest counts
        assert post(server, sessions[0]).status_code == 200
    assert len(server.state.peers._peers) == 1
    for created in sessions[1:4]:
        assert post(server, created).status_code == 200
    refused = post(server, sessions[4])
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    monkeypatch.setattr(webrtc, "MAX_CONNECTING_PER_ADDRESS", 100)
    monkeypatch.setattr(webrtc, "MAX_CONNECTING", 4)
    refused = post(server, sessions[4])
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
    assert post(server, sessions[3]).status_code == 200  # in the place of its own
    assert len(server.state.peers._peers) == 4
    for created in sessions:
        server.delete(created)


def test_a_peer_that_never_connects_is_closed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_S", 0.05)
    created = server.create()
    ports = {port for _, port, _ in candidates(post(server, created))}
    server.wait_until(lambda: not ports & udp_ports())
    assert peer_of(server, created) is None
    assert server.session(created).state == "detached"
    server.delete(created)


def test_an_offer_that_is_too_long(server: Running) -> None:
    created = server.create()
    response = post(server, created, GOOD + "a=x\r\n" * MAX_SDP)
    assert response.status_code in (413, 422)
    response = post(server, created, GOOD + "a=" + "x" * MAX_SDP)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid")
    server.delete(created)


def peer_of(server: Running, created: dict[str, Any]) -> Any:
    """The server's side of a session's connection, or None."""
    peers = server.call(lambda: list(server.state.peers._peers))
    return next((peer for peer in peers if peer.session.id == created["id"]), None)


def ice_of(server: Running, created: dict[str, Any]) -> Any:
    """Its ICE agent."""
    peer = peer_of(server, created)
    return peer.connection.getSenders()[0].transport.transport.iceGatherer._connection


def test_datagrams_of_strangers_are_not_kept(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads them before the connection stands; and an empty one ended a connection that stood."""
    monkeypatch.setattr(ice, "PACKETS_PER_S", 10**9)
    created = server.create()

    async def watch() -> None:
        peer = Peer()
        await peer.offer(server, created)
        track = await peer.track
        await track.recv()
        local = next(iter(ice_of(server, created)._nominated.values())).local_candidate
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(50):
                stranger.sendto(b"", (local.host, local.port))
                stranger.sendto(b"\x16junk", (local.host, local.port))
        for _ in range(4):
            await track.recv()
        peer.channel.send(json.dumps({"type": "prompt", "prompt": BLUE, "ref": 1}))
        assert (await peer.message("prompt")).ref == 1
        await peer.connection.close()

    run(watch())
    server.wait_until(lambda: server.session(created).state == "detached")
    assert post(server, created).status_code == 200
    agent = ice_of(server, created)
    for _ in range(2000):
        server.call(lambda: agent.data_received(b"\x80" * 1200, 1))
        if agent._queue.qsize() >= ice.MAX_WAITING:
            break
    for _ in range(5):
        server.call(lambda: agent.data_received(b"\x80" * 1200, 1))
    assert agent._queue.qsize() == ice.MAX_WAITING
    monkeypatch.setattr(ice, "PACKETS_PER_S", 0)
    agent._queue.get_nowait()
    server.call(lambda: agent.data_received(b"\x80" * 1200, 1))
    assert agent._queue.qsize() == ice.MAX_WAITING - 1
    server.delete(created)


def test_checks_are_answered_only_when_signed_and_from_few_places(server: Running) -> None:
    from aioice import stun

    created = server.create()
    host, port, _ = next(one for one in candidates(post(server, created)) if one[0] == "127.0.0.1")
    agent = ice_of(server, created)

    def check(key: str) -> bytes:
        message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        message.attributes["USERNAME"] = f"{agent.local_username}:abcd"
        message.attributes["PRIORITY"] = 1
        message.attributes["ICE-CONTROLLING"] = 1
        message.add_message_integrity(key.encode())
        return bytes(message)

    places = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(ice.MAX_SOURCES + 4)]
    try:
        for place in places:
            place.bind(("127.0.0.1", 0))
            place.sendto(check("wrong" * 5), (host, port))
            place.sendto(check(agent.local_password), (host, port))
        server.wait_until(lambda: len(agent._sources) == ice.MAX_SOURCES)
        marks = {place.getsockname()[1] for place in places}
        assert {source[1] for source in agent._sources} <= marks
        assert len(agent.remote_candidates) <= ice.MAX_SOURCES
    finally:
        for place in places:
            place.close()
    server.delete(created)


def test_one_data_channel_is_heard_and_many_end_the_connection(server: Running) -> None:
    created = server.create()

    async def watch() -> None:
        peer = Peer()
        await peer.offer(server, created)
        await (await peer.track).recv()
        await peer.message("hello")
        second = peer.connection.createDataChannel("second")
        closed = asyncio.Event()
        second.on("close", closed.set)
        await closed.wait()
        peer.channel.send(json.dumps({"type": "pause", "ref": 1}))
        assert (await peer.message("state")).state == "paused"
        for i in range(200):
            peer.connection.createDataChannel(f"channel-{i}")
        while await asyncio.to_thread(peer_of, server, created) is not None:
            await asyncio.sleep(0.01)
        await peer.connection.close()

    run(watch())
    server.delete(created)


def test_messages_are_bounded_in_size_and_rate(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MESSAGES_PER_S", 0.01)
    monkeypatch.setattr(channel, "MESSAGES_AT_ONCE", 20)
    created = server.create()
    limit = server.settings.max_body_bytes

    async def watch() -> None:
        peer = Peer()
        await peer.offer(server, created)
        await (await peer.track).recv()
        await peer.message("hello")
        assert f"a=max-message-size:{limit}" in peer.connection.remoteDescription.sdp
        peer.channel.send("x" * limit)
        assert (await peer.message("error")).error.code == "invalid"
        assert peer.connection.sctp is not None
        peer.connection.sctp._remote_max_message_size = 0  # a peer that heeds nothing
        peer.channel.send("é" * (limit // 2 + 1))
        assert (await peer.message("error")).error.code == "too_large"
        for _ in range(30):
            peer.channel.send("nonsense")
        while await asyncio.to_thread(peer_of, server, created) is not None:
            await asyncio.sleep(0.01)
        await peer.connection.close()

    run(watch())
    assert server.session(created).state == "detached"  # the session can be resumed
    server.delete(created)


def test_a_message_that_is_never_whole_ends_the_connection(server: Running) -> None:
    created = server.create()

    async def watch() -> None:
        peer = Peer()
        await peer.offer(server, created)
        await (await peer.track).recv()
        await peer.message("hello")
        assert peer.connection.sctp is not None
        peer.connection.sctp._remote_max_message_size = 0
        peer.channel.send("x" * (8 * server.settings.max_body_bytes))
        while await asyncio.to_thread(peer_of, server, created) is not None:
            await asyncio.sleep(0.01)
        await peer.connection.close()

    run(watch())
    server.delete(created)


def test_a_viewer_on_the_network(serve: Callable[..., Running]) -> None:
    """Of a server that others can reach; the viewer is found by its own packets."""
    server = serve(loopback=False)
    created = server.create()

    async def watch() -> None:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = connection.addTransceiver("video", direction="recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        sdp = connection.localDescription.sdp.replace("\r\n\r\n", "\r\n")
        response = await asyncio.to_thread(post, server, created, sdp)
        assert {ip for ip, _, _ in candidates(response) if ":" not in ip} == set(LAN)
        await connection.setRemoteDescription(RTCSessionDescription(response.json()["sdp"], "answer"))
        await transceiver.receiver.track.recv()
        await connection.close()

    if not LAN:
        pytest.skip("this machine has no network")
    run(watch())
    server.delete(created)
